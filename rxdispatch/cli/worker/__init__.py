"""``rxdispatch worker``: run a handler for the tasks of a board."""
