"""
The shared memory of a board: its file, its layout, its cells and the index of ids.

Internal: users import from ``rxdispatch``.
"""
