"""The ``prioritize`` operator: a bounded queue whose highest key goes first."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc

from rxdispatch.callables import plain_function
from rxdispatch.operators._subscription import operator_of
from rxdispatch.operators.flow._buffering import Buffering
from rxdispatch.operators.flow._queue_drain import Queued
from rxdispatch.overflow import Drops, checked_size

__all__ = ["prioritize"]

T = TypeVar("T")


def prioritize(
    key: Callable[[T], Hashable], *, size: int
) -> Callable[[Observable[T]], Observable[T]]:
    """
    Hold up to *size* items while downstream is busy, and emit the highest *key* first.

    ::

        --1-5-9-5'-------------|
        [ prioritize(number,   ]
        [            size=3)   ]   busy after 1
        --1-------9--5--5'-----|

    Higher keys go first, as on boards: ``prioritize(lambda task: task.priority, size=100)``. To
    emit the nearest deadline first, negate it. Items with equal keys keep their order. Downstream
    is busy while the valve below has no room. Without a valve below it is never busy, and items
    pass straight through.

    The operator's valve stays open while the valve below is closed, and closes when *size* items
    wait. If a source that cannot wait pushes more, the items are kept and ``no_demand`` is logged
    once. The cost of an item grows with the logarithm of the number of *different* keys, not with
    the number of items that wait.

    Args:
        key: Called once for each item that has to wait. Keys must be hashable and comparable.
        size: How many items may wait, at least 1.

    Raises:
        ConfigError: If an argument breaks its rule.

    Completion waits until all items are emitted. An error, even if *key* raised it, is passed on
    at once; the items that wait are dropped and logged. Disposal drops them.

    Example:
        >>> import asyncio, reactivex
        >>> from reactivex import operators as rx
        >>> from rxdispatch.operators.flow._map_async import map_async
        >>> from rxdispatch.streams import run
        >>> async def slow(n: int) -> int:
        ...     await asyncio.sleep(0.001)
        ...     return n
        >>> stream = reactivex.of(1, 5, 9, 5).pipe(
        ...     prioritize(lambda n: n, size=3), map_async(slow, max_concurrent=1), rx.to_list()
        ... )
        >>> asyncio.run(run(stream))
        [1, 9, 5, 5]
    """
    # Otherwise its coroutine would serve as the key and never be awaited.
    plain_function("key", key)
    checked_size(size)

    def make(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None) -> Buffering[T]:
        drops = Drops("prioritize", "overflow")
        return Buffering("prioritize", observer, scheduler, _ByRank(key), drops=drops, size=size)

    return operator_of(make)


class _Rank:
    """A key and its items, ordered so that the highest key comes first in a heap."""

    __slots__ = ("entries", "key")

    def __init__(self, key: Any, entries: Any) -> None:
        self.key = key
        # A list for a single entry, because a deque takes ten times as much memory.
        self.entries: Any = entries

    def __lt__(self, other: _Rank) -> bool:
        return bool(other.key < self.key)


class _ByRank(Generic[T]):
    """Items by rank: a queue for each key, and a heap of the keys."""

    def __init__(self, key: Callable[[T], Hashable]) -> None:
        self._key = key
        self._ranks: dict[Hashable, _Rank] = {}
        self._heap: list[_Rank] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def put(self, entry: Queued[T], /) -> None:
        key = self._key(entry[0])
        rank = self._ranks.get(key)
        if rank is None:
            rank = _Rank(key, [entry])
            heappush(self._heap, rank)
            self._ranks[key] = rank
        else:
            if rank.entries.__class__ is list:
                rank.entries = deque(rank.entries)
            rank.entries.append(entry)
        self._count += 1

    def take(self) -> Queued[T]:
        rank = self._heap[0]
        entries = rank.entries
        entry: Queued[T] = entries.pop() if entries.__class__ is list else entries.popleft()
        if not entries:
            heappop(self._heap)
            del self._ranks[rank.key]
        self._count -= 1
        return entry

    def clear(self) -> None:
        self._heap.clear()
        self._ranks.clear()
        self._count = 0
