"""
Placement: choosing a node by criteria, and reserving slots on it.

Internal: users import from ``rxdispatch``.
"""
