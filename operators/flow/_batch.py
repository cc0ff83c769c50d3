"""The ``batch`` operator: lists of items, by size or by age."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Literal, TypeVar

from reactivex import Observable, abc

from rxdispatch.checks import integer
from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.operators._subscription import Subscription, operator_of
from rxdispatch.seconds import seconds

__all__ = ["batch"]

T = TypeVar("T")

log = get_logger(__name__)


def batch(
    count: int, timespan: float | timedelta, *, on_error: Literal["flush", "drop"] = "flush"
) -> Callable[[Observable[T]], Observable[list[T]]]:
    """
    Collect items into lists of up to *count* items that come within *timespan* of the first.

    ::

        --1-2-3---4----------|
        [    batch(3, 5s)    ]
        ------[1,2,3]---[4]--|

    A list is never empty. The last items are emitted before the completion.

    While the consumer below has no room, lists wait: full lists in order, and the last list goes
    on growing, up to *count*, even after its time. A source that can wait is asked for as many
    items as fill the lists that the consumer has room for. If any other source pushes more, the
    items are kept and ``no_demand`` is logged once. Completion waits for room, an error does not.

    Args:
        count: The most items in a list, at least 1.
        timespan: Seconds from the first item of a list until it is emitted.
        on_error: What happens to the collected items when the source fails: ``"flush"`` emits
            them before the error, ``"drop"`` drops them and logs how many as ``batch_dropped``.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> import asyncio, reactivex
        >>> from reactivex import operators as rx
        >>> from rxdispatch.streams import run
        >>> asyncio.run(run(reactivex.range(7).pipe(batch(3, 1.0), rx.to_list())))
        [[0, 1, 2], [3, 4, 5], [6]]
    """
    integer("count", count)
    if on_error not in ("flush", "drop"):
        raise ConfigError('on_error must be "flush" or "drop"', on_error)
    span = seconds("timespan", timespan, zero=False)

    def make(
        observer: abc.ObserverBase[list[T]], scheduler: abc.SchedulerBase | None
    ) -> _Batcher[T]:
        return _Batcher(count, span, on_error == "drop", observer, scheduler)

    return operator_of(make)


class _Batcher(Subscription[T, list[T]]):
    """
    One subscription of ``batch``.

    ``_items`` is the list that grows; ``_ready`` holds full lists that wait for room below.
    One timer serves many lists: when it fires before the deadline of the current list, it was set
    for a list that has left since, and it is set again. A timer for each list would cost more
    than everything else here.
    """

    def __init__(
        self,
        count: int,
        span: float,
        drop: bool,
        observer: abc.ObserverBase[list[T]],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__("batch", count, observer, scheduler, on_room=self._drain)
        self._count = count
        self._span = span
        self._drop = drop
        self._items: list[T] = []
        self._ready: deque[list[T]] = deque()
        self._deadline = 0.0
        self._due = self._exhausted = self._draining = False

    def room(self) -> int:
        """How many more items fill the lists that the consumer has room for."""
        if self.below is None:
            # A full list leaves at once, so there is never less than one free place.
            return sys.maxsize
        held = len(self._ready) * self._count + len(self._items)
        return min(sys.maxsize, self.below.room() * self._count) - held

    def on_next(self, item: T) -> None:
        """Add *item* to the current list."""
        items = self._items
        items.append(item)
        if len(items) >= self._count:
            self._items = []
            self._due = False
            self._ready.append(items)
            if not self._draining:
                self._drain()
                if self._ready and not self.upstream.demand_checked:
                    self.upstream.check_demand()
        elif len(items) == 1:
            self._deadline = self.loop.time() + self._span
            if self.timer is None:
                self._set_timer(self._deadline)

    def _drain(self) -> None:
        """Emit lists that are full or due while there is room below."""
        # Emitting makes no room here: the valve below calls the source when there is some.
        # An emission may call this again; the inner call must not emit before the outer one ends.
        if self._draining:
            return
        self._draining = True
        try:
            while not self.closed and (self._ready or self._due) and self._open():
                self.observer.on_next(self._take())
        except BaseException:
            # The subscriber raised; the lists behind this one are still due.
            self.loop.call_soon(self._drain, context=self.home.copy())
            raise
        finally:
            self._draining = False
        if self._exhausted and not self._ready and not self._items:
            self.complete()

    def _open(self) -> bool:
        return self.below is None or self.below.room() > 0

    def _take(self) -> list[T]:
        if self._ready:
            return self._ready.popleft()
        items, self._items = self._items, []
        self._due = False
        return items

    def _set_timer(self, when: float) -> None:
        self.timer = self.loop.call_at(when, self._on_timer, when, context=self.home.copy())

    def _on_timer(self, when: float) -> None:
        self.timer = None
        if not self._items:
            return
        if self._deadline > max(when, self.loop.time()):
            self._set_timer(self._deadline)
            return
        self._due = True
        self._drain()

    def on_completed(self) -> None:
        """Complete once all is emitted."""
        self._exhausted = True
        self._due = bool(self._items)
        self._drain()

    def fail(self, error: BaseException) -> None:
        """Emit or drop the held items, then end with *error*."""
        if self.closed:
            return
        held = len(self._ready) * self._count + len(self._items)
        try:
            if held and self._drop:
                log.warning("batch_dropped", operator="batch", items=held)
            elif held:
                self._due = bool(self._items)
                while not self.closed and (self._ready or self._due):
                    self.observer.on_next(self._take())
        finally:
            # Also when the subscriber raises at a flushed list.
            super().fail(error)

    def clear(self) -> None:
        """Drop the held items."""
        self._ready.clear()
        self._items = []
