"""
Files and folders that no other user can plant or write, with locks and a thread for file work.

Internal: users import from ``rxdispatch``.
"""
