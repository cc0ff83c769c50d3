"""
The embedded server: a Valkey server that ends with the process that started it.

Internal: users import from ``rxdispatch``.
"""
