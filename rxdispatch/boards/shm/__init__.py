"""
Boards in shared memory; docs/explanation/shared-memory.md says how and why.

Internal: users import from ``rxdispatch``.
"""
