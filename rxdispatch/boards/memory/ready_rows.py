"""``ReadyRows``: queues of ready rows."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from heapq import heapify, heappop, heappush, nsmallest
from itertools import islice
from operator import itemgetter

from rxdispatch.boards.memory.rows import READY, Row

__all__ = ["ReadyRows"]

_FEW = 1024
"""How many rows a queue may hold before it drops the rows that are no longer ready."""


class ReadyRows:
    """Queues of ready rows: by priority, then by place."""

    __slots__ = ("_order", "_queues")

    def __init__(self) -> None:
        self._queues: dict[int, _Queue] = {}
        self._order: list[int] = []  # the priorities in use, highest first

    def append(self, row: Row) -> None:
        """Add a row that has the last place."""
        row.queued = True
        queue = self._queue(row.priority)
        queue.fresh.append(row)
        if len(queue.fresh) > queue.limit:
            queue.prune()

    def put_back(self, row: Row) -> None:
        """Add a row at the place it had."""
        if not row.queued:
            row.queued = True
            queue = self._queue(row.priority)
            heappush(queue.back, (row.place, row))
            if len(queue.back) > queue.limit:
                queue.prune()

    def best(self) -> Iterator[Row]:
        """Remove and yield rows that are still ready, best first."""
        for priority in self._order:
            queue = self._queues[priority]
            while (row := queue.pop()) is not None:
                yield row

    def top(self) -> Row | None:
        """Return the best row without removing it; None if there is none."""
        for priority in self._order:
            row = self._queues[priority].top()
            if row is not None:
                return row
        return None

    def pop(self) -> Row | None:
        """Remove and return the best row; None if there is none."""
        for priority in self._order:
            row = self._queues[priority].pop()
            if row is not None:
                return row
        return None

    def first(self, most: int) -> Iterator[Row]:
        """Yield the first rows of each priority: up to *most* of ``back``, and of ``fresh``."""
        for queue in self._queues.values():
            came_back = (item for item in queue.back if item[1].mark == READY)
            yield from (row for _, row in nsmallest(most, came_back, key=itemgetter(0)))
            yield from islice((row for row in queue.fresh if row.mark == READY), most)

    def _queue(self, priority: int) -> _Queue:
        queue = self._queues.get(priority)
        if queue is None:
            queue = self._queues[priority] = _Queue()
            self._order = sorted(self._queues, reverse=True)
        return queue


class _Queue:
    """
    The ready rows of one priority: ``fresh`` in order of their places, and ``back``, a heap.

    Rows that came back to their places are in ``back``. Rows that are no longer ready are dropped
    when they come to the front. If tasks are claimed by their ids, such rows may never get there,
    so each time the queue has doubled, it drops all of them.
    """

    __slots__ = ("back", "fresh", "limit")

    def __init__(self) -> None:
        self.fresh: deque[Row] = deque()
        self.back: list[tuple[int, Row]] = []
        self.limit = _FEW

    def prune(self) -> None:
        """Drop the rows that are no longer ready."""
        for row in (*self.fresh, *(row for _, row in self.back)):
            row.queued = row.mark == READY
        self.fresh = deque(row for row in self.fresh if row.queued)
        self.back = [item for item in self.back if item[1].queued]
        heapify(self.back)
        self.limit = max(_FEW, 2 * len(self.fresh), 2 * len(self.back))

    def top(self) -> Row | None:
        """Return the first row that is still ready, and drop the rows before it."""
        fresh, back = self.fresh, self.back
        while back and back[0][1].mark != READY:
            heappop(back)[1].queued = False
        while fresh and fresh[0].mark != READY:
            fresh.popleft().queued = False
        if back and (not fresh or back[0][0] < fresh[0].place):
            return back[0][1]
        return fresh[0] if fresh else None

    def pop(self) -> Row | None:
        """Remove and return the first row that is still ready."""
        fresh, back = self.fresh, self.back
        while fresh or back:
            if back and (not fresh or back[0][0] < fresh[0].place):
                row = heappop(back)[1]
            else:
                row = fresh.popleft()
            row.queued = False
            if row.mark == READY:
                return row
        return None
