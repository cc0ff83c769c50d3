"""
``rxdispatch demo``: dispatch a tree of real files.

Internal: users import from ``rxdispatch``.
"""
