"""``MergedRows``: reads several queues of ready rows as one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heapreplace

from rxdispatch.boards.memory.ready_rows import ReadyRows
from rxdispatch.boards.memory.rows import Row

__all__ = ["MergedRows"]


class MergedRows:
    """
    Several queues of ready rows, read as one: by priority, then by place.

    The heap has the best row of each queue. No two rows of a board have the same place, so a
    comparison never reaches the rows themselves. It lives for one claim, in which nothing else
    changes the queues.

    Args:
        sources: The queues; those that are empty cost nothing later.
    """

    __slots__ = ("_heap",)

    def __init__(self, sources: Sequence[ReadyRows]) -> None:
        self._heap: list[tuple[int, int, Row, ReadyRows]] = []
        for source in sources:
            row = source.top()
            if row is not None:
                self._heap.append((-row.priority, row.place, row, source))
        heapify(self._heap)

    def best(self) -> Iterator[Row]:
        """Remove and yield rows that are still ready, best first."""
        heap = self._heap
        while len(heap) > 1:
            row = self.pop()
            assert row is not None
            yield row
        if heap:
            yield from heap[0][3].best()

    def top(self) -> Row | None:
        """Return the best row without removing it; None if there is none."""
        return self._heap[0][2] if self._heap else None

    def pop(self) -> Row | None:
        """Remove and return the best row; None if there is none."""
        heap = self._heap
        if not heap:
            return None
        source = heap[0][3]
        row = source.pop()
        following = source.top()
        if following is None:
            heappop(heap)
        else:
            heapreplace(heap, (-following.priority, following.place, following, source))
        return row
