"""Operators for any stream, one per module."""
