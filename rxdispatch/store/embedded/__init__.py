"""
The embedded server: a Valkey that ends with its owner.

Internal: users import from ``rxdispatch``.
"""
