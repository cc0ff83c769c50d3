"""
What one process keeps in its own memory about a shared board; all of it can be rebuilt.

Internal: users import from ``rxdispatch``.
"""
