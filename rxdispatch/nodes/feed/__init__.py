"""
The reading side of a fleet: a replica in each process, kept current by messages.

Internal: users import from ``rxdispatch``.
"""
