"""
A Valkey server that lives and ends with its owner.

Internal: users import from ``rxdispatch``.
"""
