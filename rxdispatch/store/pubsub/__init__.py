"""
Pub/Sub as hot observables.

Internal: users import from ``rxdispatch``.
"""
