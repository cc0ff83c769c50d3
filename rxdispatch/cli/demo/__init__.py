"""
``rxdispatch demo``: dispatches a tree of real files.

Internal: users import from ``rxdispatch``.
"""
