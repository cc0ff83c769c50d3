"""
What several shapes of work have in common.

Internal: users import from ``rxdispatch``.
"""
