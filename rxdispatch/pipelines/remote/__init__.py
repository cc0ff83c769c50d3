"""
Functions that are called over HTTP, and the app that serves them.

Internal: users import from ``rxdispatch``.
"""
