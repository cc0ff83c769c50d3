"""The events and statistics of an outbox, and ``Dedupe`` for its receiver."""

from __future__ import annotations

from typing import Any

import attrs

from rxdispatch.overflow import checked_size

__all__ = ["Dedupe", "OutboxEvent", "OutboxStats"]


@attrs.frozen(slots=True)
class OutboxEvent:
    """
    An event in an outbox, as *send* gets it.

    Attributes:
        seq: Its number; numbers grow, and a gap means that events were dropped.
        id: Its id, by which the receiver recognises a repetition.
        event: The event itself.
        at: When it was put in, in seconds since 1970.
    """

    seq: int
    id: str
    event: Any
    at: float


@attrs.frozen(slots=True)
class OutboxStats:
    """
    A snapshot of an outbox.

    Attributes:
        waiting: How many events are on disk.
        bytes: Their size, encoded.
        sent: How many were sent since it was opened.
        dropped: How many were dropped since then, to make room or because of their age.
        failures: How often sending failed since then.
        oldest_age: Seconds for which the oldest has waited; 0 if none waits.
    """

    waiting: int
    bytes: int
    sent: int
    dropped: int
    failures: int
    oldest_age: float


class Dedupe:
    """
    A bounded set of the newest ids, by which the receiver of an outbox drops repetitions.

    Test with ``in``, do the work, then :meth:`add`: the other way round, an event is lost if the
    work fails. An outbox repeats at most its last batch, so room for a few batches per sender is
    enough.

    Args:
        size: How many ids are kept, at least 1.

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
        self._ids: dict[str, None] = {}  # in the order of arrival

    def __contains__(self, id: object) -> bool:  # noqa: A002
        return id in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, id: str) -> None:  # noqa: A002
        """Remember *id*; if the set is full, forget the oldest."""
        self._ids.pop(id, None)
        self._ids[id] = None
        if len(self._ids) > self._size:
            del self._ids[next(iter(self._ids))]
