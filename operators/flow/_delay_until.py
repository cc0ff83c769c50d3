"""The ``delay_until`` operator: emits each item when it is due."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import Context
from datetime import datetime
from heapq import heappop, heappush
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxdispatch.callables import plain_function
from rxdispatch.checks import is_finite
from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import ConfigError
from rxdispatch.operators._subscription import operator_of
from rxdispatch.operators.flow._timed import Timed
from rxdispatch.overflow import checked_size

__all__ = ["delay_until"]

T = TypeVar("T")

_RULE = "when must return an aware datetime or a finite loop time"


def delay_until(
    when: Callable[[T], datetime | float], *, size: int = 1024
) -> Callable[[Observable[T]], Observable[T]]:
    """
    Hold each item until the time that *when* gives for it.

    ::

        --a9-b5-c7-----------|
        [ delay_until(number) ]
        -----b----c---a|

    Items are emitted in the order of their times, or in order of arrival if the times are equal.
    An item that is already due is emitted at once. An item that is due while there is no room
    below waits for room. Each item is emitted under the ``contextvars`` it was pushed under.

    Up to *size* items are held, and a source that can wait is asked for no more. So an item that
    is still in the source, but due before all held items, comes late. If any other source pushes
    more, the items are kept and ``no_demand`` is logged once.

    Args:
        when: Called once with each item. An aware ``datetime`` is compared with
            ``LoopScheduler.now``: the wall clock as it was when the loop was first used, advanced
            by the loop's clock. So setting the wall clock later changes nothing. A float is in
            seconds on the loop's own clock, as for ``loop.call_at``.
        size: How many items may be held, at least 1.

    Raises:
        ConfigError: If an argument breaks its rule. If a value that *when* returns breaks its
            rule, the stream ends with one.

    Completion waits until all items are emitted. An error, even if *when* raised it, is passed on
    at once; the held items are dropped and logged as ``items_dropped``. Disposal drops them.

    Example:
        >>> import asyncio, reactivex
        >>> from reactivex import operators as rx
        >>> from rxdispatch.streams import run
        >>> from rxdispatch.testing import run_virtual
        >>> stream = reactivex.of(9, 5, 7).pipe(delay_until(float), rx.to_list())
        >>> run_virtual(run(stream))
        [5, 7, 9]
    """
    plain_function("when", when)
    checked_size(size)

    return operator_of(lambda observer, scheduler: _Delayer(when, size, observer, scheduler))


class _Delayer(Timed[T]):
    """One subscription of ``delay_until``: a heap of items by time, then by order of arrival."""

    def __init__(
        self,
        when: Callable[[T], datetime | float],
        size: int,
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__("delay_until", size, observer, scheduler)
        self._when = when
        self._size = size
        self._clock = LoopScheduler(self.loop)
        self._arrived = 0
        self._heap: list[tuple[float, int, T, Context]] = []

    def keep(self, item: T, context: Context) -> bool:
        when = self._loop_time(self._when(item))
        self._arrived += 1
        entry = (when, self._arrived, item, context)
        heappush(self._heap, entry)
        return self._heap[0] is entry

    def next_time(self) -> float:
        return self._heap[0][0]

    def waits_until(self) -> float | None:
        # An item that is due already waits for room below, not for a time.
        return self._heap[0][0] if self._heap and self._heap[0][0] > self.now() else None

    def ready(self, now: float) -> int:
        return 1 if self._heap and self._heap[0][0] <= now else 0

    def take(self) -> tuple[T, Context]:
        _, _, item, context = heappop(self._heap)
        return item, context

    def room(self) -> int:
        return self._size - len(self._heap)

    def count(self) -> int:
        return len(self._heap)

    def clear(self) -> None:
        self._heap.clear()

    def _loop_time(self, when: Any) -> float:
        if isinstance(when, datetime):
            if when.tzinfo is None:
                raise ConfigError(_RULE, when)
            return self._clock.loop_time(when)
        if not is_finite(when):
            raise ConfigError(_RULE, when)
        return float(when)
