"""
A Redis list as a stream that loses no entry.

Internal: users import from ``rxdispatch``.
"""
