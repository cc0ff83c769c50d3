"""
``rxdispatch nodes``: shows a fleet, or simulates one.

Internal: users import from ``rxdispatch``.
"""
