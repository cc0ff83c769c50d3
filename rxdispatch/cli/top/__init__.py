"""
``rxdispatch top``: shows the boards and nodes of a server, live.

Internal: users import from ``rxdispatch``.
"""
