"""``rxdispatch demo``: dispatch a tree of real files."""
