"""
Workflows: state machines whose history survives their process.

Internal: users import from ``rxdispatch``.
"""
