"""Operators between task streams and boards."""
