"""
``rxdispatch worker``: run a handler for the tasks of a board.

Internal: users import from ``rxdispatch``.
"""
