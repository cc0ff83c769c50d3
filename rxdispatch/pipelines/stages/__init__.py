"""
``Pipeline``: stages in a row, each with its own queue.

Internal: users import from ``rxdispatch``.
"""
