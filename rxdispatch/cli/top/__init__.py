"""``rxdispatch top``: boards and nodes of a server, live."""
