"""
A process's copy of a fleet, and the parts of the feed that are updated with it.

Internal: users import from ``rxdispatch``.
"""
