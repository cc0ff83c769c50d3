"""``BestFirst``: merges the queues of several kinds, for one claim."""

from __future__ import annotations

from collections.abc import Iterable
from heapq import heapify, heappop, heapreplace
from typing import Protocol

__all__ = ["BestFirst", "EntryQueue"]

_Entry = tuple[int, ...]


class EntryQueue(Protocol):
    """A queue of entries, best first."""

    def first(self) -> _Entry | None:
        """Return the first valid entry."""
        ...

    def pop(self) -> _Entry:
        """Remove and return what :meth:`first` returned."""
        ...


class BestFirst:
    """
    The entries of several queues, best first.

    INVARIANT. Nothing is added to the queues while this object is in use. So the first entry of a
    queue only ever grows, and a heap of the first entries is enough.
    """

    __slots__ = ("_tops",)

    def __init__(self, queues: Iterable[EntryQueue]) -> None:
        self._tops: list[tuple[_Entry, int, EntryQueue]] = []
        for queue in queues:
            top = queue.first()
            if top is not None:
                # The number keeps the heap from comparing queues.
                self._tops.append((top, len(self._tops), queue))
        heapify(self._tops)

    def first(self) -> _Entry | None:
        """Return the first valid entry of all queues."""
        tops = self._tops
        while tops:
            known, i, queue = tops[0]
            top = queue.first()
            if top == known:
                return top
            if top is None:
                heappop(tops)
            else:
                heapreplace(tops, (top, i, queue))
        return None

    def pop(self) -> _Entry:
        """Remove and return what :meth:`first` returned."""
        return self._tops[0][2].pop()
