"""
``rxdispatch worker``: runs a handler for the tasks of a board.

Internal: users import from ``rxdispatch``.
"""
