"""
Files and folders that no other user can plant, with locks and a thread for writing.

Internal: users import from ``rxdispatch``.
"""
