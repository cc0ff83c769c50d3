"""
Boards inside one process, in dictionaries.

Internal: users import from ``rxdispatch``.
"""
