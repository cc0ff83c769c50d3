"""
``Pipeline``: stages in a row, each with its own queue and workers.

Internal: users import from ``rxdispatch``.
"""
