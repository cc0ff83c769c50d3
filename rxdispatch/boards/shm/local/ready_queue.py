"""``ReadyQueue``: the ready tasks of one kind that are outside the ring, best first."""

from __future__ import annotations

from bisect import insort
from collections.abc import Callable

from rxdispatch.boards.shm.local.mark_heap import MarkHeap

__all__ = ["ReadyQueue"]

_Entry = tuple[int, ...]


class ReadyQueue:
    """
    A heap for each priority. An entry is -priority, place (2 numbers), cell and mark.

    Args:
        heap: Makes an empty heap.

    Attributes:
        levels: The heaps, by -priority.
    """

    __slots__ = ("_heap", "_order", "levels")

    def __init__(self, heap: Callable[[], MarkHeap]) -> None:
        self._heap = heap
        self.levels: dict[int, MarkHeap] = {}
        self._order: list[int] = []

    def push(self, entry: _Entry) -> None:
        """Add an entry, unless it is there."""
        level = entry[0]
        heap = self.levels.get(level)
        if heap is None:
            heap = self.levels[level] = self._heap()
            insort(self._order, level)
        if heap.known.get(entry[-2]) != entry[-1]:
            heap.push(entry)

    def first(self) -> _Entry | None:
        """Return the first valid entry, and drop the entries before it."""
        while self._order:
            level = self._order[0]
            top = self.levels[level].first()
            if top is not None:
                return top
            self.forget(level)
        return None

    def pop(self) -> _Entry:
        """Remove and return what :meth:`first` returned."""
        return self.levels[self._order[0]].pop()

    def forget(self, level: int) -> None:
        """Forget a priority that has no valid entry."""
        del self.levels[level]
        self._order.remove(level)

    def priorities(self) -> tuple[int, ...]:
        """Return the priorities, negated, highest first."""
        return tuple(self._order)
