"""
Connections to the server, and the embedded server.

Internal: users import from ``rxdispatch``.
"""
