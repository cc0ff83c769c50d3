"""
``Graph``: stages connected by named ports.

Internal: users import from ``rxdispatch``.
"""
