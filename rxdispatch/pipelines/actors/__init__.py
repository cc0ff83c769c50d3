"""
Actors: one mailbox, one handler, one message at a time.

Internal: users import from ``rxdispatch``.
"""
