"""
``rxdispatch top``: boards and nodes of a server, live.

Internal: users import from ``rxdispatch``.
"""
