"""
Files and folders that no other user can plant, locks on them, and a thread to write them in.

Internal: users import from ``rxdispatch``.
"""
