"""Figures that suites record, and the summary and report made of them."""
