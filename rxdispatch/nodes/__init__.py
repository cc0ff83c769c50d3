"""
Fleets of nodes: a registry to write to, and a feed in each process to read from.

Internal: users import from ``rxdispatch``.
"""
