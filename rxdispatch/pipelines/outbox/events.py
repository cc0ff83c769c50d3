"""What an outbox sends and tells, and the memory of ids on the other side."""

from __future__ import annotations

from typing import Any

import attrs

from rxdispatch.overflow import checked_size

__all__ = ["Dedupe", "OutboxEvent", "OutboxStats"]


@attrs.frozen(slots=True)
class OutboxEvent:
    """
    An event on its way.

    Attributes:
        seq: Its number, only growing; gaps are events that were dropped.
        id: What the far side knows a repetition by.
        event: What was put.
        at: When, in seconds since 1970.
    """

    seq: int
    id: str
    event: Any
    at: float


@attrs.frozen(slots=True)
class OutboxStats:
    """
    How an outbox stands.

    Attributes:
        waiting: Events on disk.
        bytes: Their size, encoded.
        sent: How many were sent since it was opened.
        dropped: How many were dropped since, for size or age.
        failures: How often sending failed since.
        oldest_age: Seconds for which the oldest has waited; 0 where none waits.
    """

    waiting: int
    bytes: int
    sent: int
    dropped: int
    failures: int
    oldest_age: float


class Dedupe:
    """
    A bounded memory of ids: what has been done already, on the receiving side of an outbox.

    Ask with ``in``, do the work, then :meth:`add`: the other way round an event is lost when the
    work fails. An outbox repeats at most its last batch: a few batches a sender are enough.

    Args:
        size: How many ids are kept, the newest; at least 1.

    Raises:
        ConfigError: If *size* is not an int >= 1.

    Example:
        >>> done = Dedupe(2)
        >>> for event in ("a", "b", "a", "c"):
        ...     if event not in done:
        ...         done.add(event)
        >>> "a" in done, "b" in done, "c" in done
        (False, True, True)
    """

    __slots__ = ("_ids", "_size")

    def __init__(self, size: int = 100_000) -> None:
        self._size = checked_size(size)
        self._ids: dict[str, None] = {}  # in the order of their coming

    def __contains__(self, id: object) -> bool:  # noqa: A002
        return id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, id: str) -> None:  # noqa: A002
        """Remember *id*; the oldest is forgotten where there is no room."""
        self._ids.pop(id, None)
        self._ids[id] = None
        if len(self._ids) > self._size:
            del self._ids[next(iter(self._ids))]
