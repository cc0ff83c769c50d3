"""
Boards on a Redis or Valkey server: their keys, their Lua scripts and the engine that calls these.

Internal: users import from ``rxdispatch``.
"""
