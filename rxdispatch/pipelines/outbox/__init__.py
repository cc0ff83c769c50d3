"""
Events kept on disk until the far side has them.

Internal: users import from ``rxdispatch``.
"""
