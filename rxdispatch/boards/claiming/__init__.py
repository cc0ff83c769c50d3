"""
Claiming from an engine, and waiting at an inbox.

Internal: users import from ``rxdispatch``.
"""
