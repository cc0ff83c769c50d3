"""
Connections to the server, and the server that comes along.

Internal: users import from ``rxdispatch``.
"""
