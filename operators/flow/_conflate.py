"""The ``conflate`` operator: keep the newest item while downstream is busy."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Hashable
from contextvars import Context
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc

from rxdispatch.callables import plain_function
from rxdispatch.errors import ConfigError
from rxdispatch.operators._subscription import operator_of
from rxdispatch.operators.flow._buffering import Buffering
from rxdispatch.operators.flow._queue_drain import Queued
from rxdispatch.overflow import Drops

__all__ = ["conflate"]

T = TypeVar("T")


def conflate(
    *,
    key: Callable[[T], Hashable] | None = None,
    merge: Callable[[T, T], T] | None = None,
) -> Callable[[Observable[T]], Observable[T]]:
    """
    Keep only the newest item per *key* while downstream is busy.

    ::

        --a1-a2-b1-a3----------|
        [    conflate(key)     ]   busy after a1
        --a1----------a3--b1---|

    Downstream is busy while the valve below has no room. Without a valve below it is never busy,
    and items pass straight through. A key keeps its place in the queue when a newer item replaces
    the waiting one, so a key that changes all the time is not delayed forever. The number of
    items that wait is bounded by the number of keys. The operator's own valve never closes.

    Args:
        key: Groups items; by default all items are one group.
        merge: Called with the waiting item of a key and a newer one; returns the item that waits
            from then on. By default that is the newer one; each burst of replaced items is logged
            as one ``items_dropped`` with their number, at level info.

    Raises:
        ConfigError: If an argument is not a plain function.

    Completion waits until all items are emitted. An error, even if *key* or *merge* raised it, is
    passed on at once; the items that wait are dropped and logged. Disposal drops them.

    Example:
        >>> import reactivex
        >>> from reactivex import operators as rx
        >>> from structlog.testing import capture_logs
        >>> from rxdispatch.operators.flow._map_async import map_async
        >>> from rxdispatch.streams import run
        >>> async def slow(n: int) -> int:
        ...     await asyncio.sleep(0.001)
        ...     return n
        >>> def total(merge: Callable[[int, int], int] | None) -> list[int] | None:
        ...     last = map_async(slow, max_concurrent=1)
        ...     stream = reactivex.range(10).pipe(conflate(merge=merge), last, rx.to_list())
        ...     with capture_logs():
        ...         return asyncio.run(run(stream))
        >>> total(None), total(lambda old, new: old + new)
        ([0, 9], [0, 45])
    """
    for name, function in (("key", key), ("merge", merge)):
        if function is not None and not callable(function):
            raise ConfigError(f"{name} must be callable or None", function)
        # Otherwise its coroutine would serve as the key, or the item, and never be awaited.
        if function is not None:
            plain_function(name, function)

    def make(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None) -> Buffering[T]:
        drops = Drops("conflate", "replaced", expected=True)
        waiting = _NewestOfEach(key, merge, drops)
        return Buffering("conflate", observer, scheduler, waiting, drops=drops)

    return operator_of(make)


class _NewestOfEach(Generic[T]):
    """The newest entry of each key; the keys in order of arrival."""

    def __init__(
        self,
        key: Callable[[T], Hashable] | None,
        merge: Callable[[T, T], T] | None,
        drops: Drops,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._key = key
        self._merge = merge
        self._drops = drops
        self._newest: dict[Hashable, Queued[T]] = {}
        # Beside the dict: a dict that is emptied from its front gets slower and slower.
        self._order: deque[Hashable] = deque()

    def __len__(self) -> int:
        return len(self._order)

    def put(self, entry: Queued[T], /) -> None:
        item: Any = entry[0]
        context: Context = entry[1]
        key = None if self._key is None else self._key(item)
        old = self._newest.get(key)
        if old is None:
            self._order.append(key)
        elif self._merge is not None:
            item = self._merge(old[0], item)
        else:
            self._drops.count()
            self._drops.arm(self._loop)
        self._newest[key] = (item, context)

    def take(self) -> Queued[T]:
        return self._newest.pop(self._order.popleft())

    def clear(self) -> None:
        self._order.clear()
        self._newest.clear()
