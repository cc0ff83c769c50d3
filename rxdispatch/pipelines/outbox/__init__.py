"""
Events that stay on disk until the receiver has them.

Internal: users import from ``rxdispatch``.
"""
