"""
Suspects: tasks whose worker died.

When a worker dies, all its claims lapse, and it is unknown which task is to blame. If a worker
claimed all of these tasks together again, one task that kills its worker would add a crash to the
others each time, until all of them were dead.

So a ready task with a crash behind it is a *suspect*. Suspects have a queue of their own, in the
order of their places. A worker, identified by its label, has room for suspects of weight
:data:`ROOM`: four after their first crash, or one that has crashed more often or that the next
crash would make dead. A claim looks at the first suspect only; a worker without room for that one
skips the whole queue.

INVARIANT. The suspects that a worker holds have a weight of at most ROOM, unless it claimed them by
their ids. So from the second crash on, a suspect is blamed only for a crash that it causes, or
that a task without earlier crashes causes beside it.
"""

from __future__ import annotations

from typing import Final

__all__ = ["ROOM", "weight"]

ROOM: Final = 4
"""The most weight of suspects that a worker may hold."""


def weight(crashes: int, max_crashes: int) -> int:
    """
    Return the weight of a task: 0 unless it is a suspect.

    Args:
        crashes: How often its worker died.
        max_crashes: How often its worker may die before the task is dead.

    Example:
        >>> [weight(crashes, 3) for crashes in range(4)], weight(1, 1)
        ([0, 1, 4, 4], 4)
    """
    if crashes == 0:
        return 0
    return 1 if crashes == 1 < max_crashes else ROOM
