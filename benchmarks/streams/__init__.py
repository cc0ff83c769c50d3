"""Suites that measure operators, sources and pipelines, one question a file."""
