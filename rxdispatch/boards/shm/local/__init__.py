"""
What one process remembers of a board in shared memory; all of it can be rebuilt.

Internal: users import from ``rxdispatch``.
"""
