"""
Connections to a server, and the pool that lends them.

Internal: users import from ``rxdispatch``.
"""
