"""
A fleet as one process knows it, and what is updated with it.

Internal: users import from ``rxdispatch``.
"""
