"""
The fleet as one process knows it, and everything that is updated with it.

Internal: users import from ``rxdispatch``.
"""
