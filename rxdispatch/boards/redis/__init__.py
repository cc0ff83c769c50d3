"""
A board on a Redis or Valkey server: its keys, its Lua scripts and the engine that calls them.

Internal: users import from ``rxdispatch``.
"""
