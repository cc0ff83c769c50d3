"""The rows of a ``MemoryBoard``."""

from __future__ import annotations

import msgspec

from rxdispatch.task import Status

__all__ = [
    "CLAIMED",
    "DEAD",
    "GONE",
    "READY",
    "SCHEDULED",
    "STATUS",
    "History",
    "Lease",
    "Row",
]

READY, SCHEDULED, CLAIMED, DEAD, GONE = range(5)
STATUS = (Status.READY, Status.SCHEDULED, Status.CLAIMED, Status.DEAD)


class History(msgspec.Struct, gc=False):
    """The failures, the end of the ttl and the death of a task; most tasks have no history."""

    attempts: int = 0
    crashes: int = 0
    error: str = ""
    traceback: str = ""
    reason: str = ""
    expires: float = 0.0
    at: float = 0.0


class Lease(msgspec.Struct, gc=False):
    """The lease of a claimed task; ``weight`` is not 0 if the task is a suspect."""

    token: int
    deadline: float
    worker: str
    weight: int = 0


class Row(msgspec.Struct, gc=False, weakref=False):
    """
    One task; ``place`` orders it among the tasks of its priority.

    All rows of a kind share the same ``str``. A reference to an object with queues would be a cycle
    that the garbage collector cannot see, because it does not track rows.

    ``queued`` is True while a queue holds the row. A queue drops a row only when it reaches it, so
    a row whose mark has changed may still be queued, and must not be added again. When a task joins
    the end, it gets a new row, and the old one gets the mark GONE.
    """

    id: str
    record: bytes
    place: int
    priority: int
    mark: int
    kind: str
    queued: bool = False
    history: History | None = None
    lease: Lease | None = None
