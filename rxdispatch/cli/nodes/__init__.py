"""
``rxdispatch nodes``: watch a fleet, or simulate one.

Internal: users import from ``rxdispatch``.
"""
