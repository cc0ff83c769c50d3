"""
The node feed: a registry to write to, and a replica of it in every process.

Internal: users import from ``rxdispatch``.
"""
