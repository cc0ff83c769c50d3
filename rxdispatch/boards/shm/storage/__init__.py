"""
The shared memory of a board: its layout, its cells and the index of ids.

Internal: users import from ``rxdispatch``.
"""
