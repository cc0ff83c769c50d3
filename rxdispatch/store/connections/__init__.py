"""
Connections to a server, and their pool.

Internal: users import from ``rxdispatch``.
"""
