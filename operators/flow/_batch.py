"""The ``batch`` operator: lists of items, by size or by age."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from typing import Generic, Literal, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.checks import integer
from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.observable import Stream
from rxdispatch.seconds import seconds
from rxdispatch.valve import Gate, bound_by

__all__ = ["batch"]

T = TypeVar("T")

log = get_logger(__name__)


def batch(
    count: int, timespan: float | timedelta, *, on_error: Literal["flush", "drop"] = "flush"
) -> Callable[[Observable[T]], Observable[list[T]]]:
    """
    Collect items into lists of *count*, or of what came within *timespan* of the first.

    ::

        --1-2-3---4----------|
        [    batch(3, 5s)    ]
        ------[1,2,3]---[4]--|

    A list is never empty. What is left is emitted before the completion.

    While the consumer below has no room, lists wait: full ones in order, and the last one goes
    on growing up to *count* past its time. A source that can wait is asked for as many items as
    fill the lists the consumer has room for; what any other source pushes beyond that is kept,
    and logged once as ``no_demand``. Completion waits for room, an error does not.

    Args:
        count: The most items in a list, at least 1.
        timespan: Seconds from the first item of a list until it is emitted.
        on_error: What becomes of the items at hand when the source fails: ``"flush"`` emits
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

    def operator(source: Observable[T]) -> Observable[list[T]]:
        def subscribe(
            observer: abc.ObserverBase[list[T]], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return _Batcher(count, span, on_error == "drop", observer).connect(source, scheduler)

        return Stream(subscribe)

    return operator


class _Batcher(Generic[T]):
    """
    One subscription.

    ``items`` is the list that grows; ``ready`` holds full lists that wait for room below.
    One timer serves many lists: one that fires before the deadline of the list at hand was set
    for a list that has left since, and is set anew. Setting one for each list would cost more
    than the rest.
    """

    def __init__(
        self, count: int, span: float, drop: bool, observer: abc.ObserverBase[list[T]]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._count = count
        self._span = span
        self._drop = drop
        self._observer = observer
        self._home = copy_context()
        self._items: list[T] = []
        self._ready: deque[list[T]] = deque()
        self._deadline = 0.0
        self._due = False
        self._timer: asyncio.TimerHandle | None = None
        self._closed = self._exhausted = self._draining = self._warned = False
        self._source = SingleAssignmentDisposable()

    def connect(
        self, source: Observable[T], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        valve = valve_of(scheduler)
        below = self._below = bound_by(valve)
        # Before the gate listens: what is held goes first, the source is asked after.
        self._link = None if below is None else below.listen(self._drain)
        self._gate = Gate(self._room, valve, fail=self._on_error)
        self._source.disposable = source.subscribe(
            self._on_next,
            self._on_error,
            self._on_completed,
            scheduler=LoopScheduler(self._loop, valve=self._gate),
        )
        return Disposable(self._dispose)

    def _room(self) -> int:
        if self._below is None:
            # A full list leaves at once, so there is never less than one free place.
            return sys.maxsize
        held = len(self._ready) * self._count + len(self._items)
        return min(sys.maxsize, self._below.room() * self._count) - held

    def _on_next(self, item: T) -> None:
        items = self._items
        items.append(item)
        if len(items) >= self._count:
            self._items = []
            self._due = False
            self._ready.append(items)
            if not self._draining:
                self._drain()
                if self._ready and not self._warned and not self._gate.watched:
                    self._warned = True
                    log.warning("no_demand", operator="batch", count=self._count)
        elif len(items) == 1:
            self._deadline = self._loop.time() + self._span
            if self._timer is None:
                self._set_timer(self._deadline)

    def _drain(self) -> None:
        """Emit what is full or due, as far as there is room below."""
        # That never makes room here: the valve below tells the source when there is some.
        # An emission that leads to another one must not overtake itself.
        if self._draining:
            return
        self._draining = True
        try:
            while not self._closed and (self._ready or self._due) and self._open():
                self._observer.on_next(self._take())
        except BaseException:
            # The subscriber raised; what is behind is due all the same.
            self._loop.call_soon(self._drain, context=self._home.copy())
            raise
        finally:
            self._draining = False
        if self._exhausted and not self._ready and not self._items:
            self._complete()

    def _open(self) -> bool:
        return self._below is None or self._below.room() > 0

    def _take(self) -> list[T]:
        if self._ready:
            return self._ready.popleft()
        items, self._items = self._items, []
        self._due = False
        return items

    def _set_timer(self, when: float) -> None:
        self._timer = self._loop.call_at(when, self._on_timer, when, context=self._home.copy())

    def _on_timer(self, when: float) -> None:
        self._timer = None
        if not self._items:
            return
        if self._deadline > max(when, self._loop.time()):
            self._set_timer(self._deadline)
            return
        self._due = True
        self._drain()

    def _on_completed(self) -> None:
        self._exhausted = True
        self._due = bool(self._items)
        self._drain()

    def _on_error(self, error: Exception) -> None:
        if self._closed:
            return
        held = len(self._ready) * self._count + len(self._items)
        try:
            if held and self._drop:
                log.warning("batch_dropped", operator="batch", items=held)
            elif held:
                self._due = bool(self._items)
                while not self._closed and (self._ready or self._due):
                    self._observer.on_next(self._take())
        finally:
            # Also when the subscriber raises at what is flushed.
            self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._closed:
            return
        self._shut()
        try:
            self._observer.on_error(error)
        finally:
            self._gate.dispose()

    def _complete(self) -> None:
        if self._closed:
            return
        self._shut()
        try:
            self._observer.on_completed()
        finally:
            self._gate.dispose()

    def _dispose(self) -> None:
        if not self._closed:
            self._shut()
        self._gate.dispose()

    def _shut(self) -> None:
        self._closed = True
        self._source.dispose()
        if self._link is not None:
            self._link.dispose()
        if self._timer is not None:
            self._timer.cancel()
        self._ready.clear()
        self._items = []
