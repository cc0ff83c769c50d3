"""
A Redis list as a stream whose entries are not lost.

Internal: users import from ``rxdispatch``.
"""
