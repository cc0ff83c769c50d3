"""
The feed: reads a fleet from memory, and keeps that memory equal to the registry.

Internal: users import from ``rxdispatch``.
"""
