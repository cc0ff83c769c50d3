"""Operators on any stream, one a module."""
