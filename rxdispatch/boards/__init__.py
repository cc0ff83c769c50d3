"""
Boards: shared lists of tasks, claimed by status mark.

Internal: users import from ``rxdispatch``.
"""
