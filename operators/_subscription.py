"""
``Subscription``: one subscription of an operator that holds a bounded number of items.

The rules for demand and for the end of a stream are written here, once.

INVARIANTS. The valve below calls the operator before it calls the source: held items are emitted
before the source is asked for more. A stream ends once, in this order: sources are disposed, the
timer is cancelled, held items are dropped or given back, the observer is notified, and the gates
open for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Generic, Protocol, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.log import get_logger
from rxdispatch.observable import Stream
from rxdispatch.protocols import Valve
from rxdispatch.valve import Gate, bound_by

__all__ = ["Connectable", "Downstream", "Subscription", "Upstream", "operator_of"]

S = TypeVar("S")
S_contra = TypeVar("S_contra", contravariant=True)
R = TypeVar("R")

log = get_logger(__name__)


class Upstream(Generic[S]):
    """
    A source, the gate that it asks for room, and the warning if it never asks.

    Args:
        name: The operator, for the log.
        limit: The most items it holds, for the log.
        room: How many more items it can take; None when nothing limits it.
        below: The valve of the subscriber, if any.
        fail: Ends the stream with an error at once.
        holds: The operator takes items while there is no room below.
    """

    __slots__ = ("_limit", "_name", "_source", "demand_checked", "gate")

    def __init__(
        self,
        name: str,
        limit: int | None,
        room: Callable[[], int] | None,
        below: Valve | None,
        *,
        fail: Callable[[Exception], None],
        holds: bool = False,
    ) -> None:
        self._name = name
        self._limit = limit
        self._source = SingleAssignmentDisposable()
        self.gate = Gate(room, below, fail=fail, holds=holds)
        #: Whether :meth:`check_demand` was called: it warns only once.
        self.demand_checked = False

    def connect(
        self,
        source: Observable[S],
        on_next: Callable[[S], None],
        on_error: Callable[[Exception], None],
        on_completed: Callable[[], None],
    ) -> None:
        """Subscribe to *source*, which asks the gate for room."""
        self._source.disposable = source.subscribe(
            on_next,
            on_error,
            on_completed,
            scheduler=LoopScheduler(asyncio.get_running_loop(), valve=self.gate),
        )

    def check_demand(self) -> None:
        """Warn, once, if the source has never asked for room; called when it pushed too much."""
        if not self.demand_checked:
            self.demand_checked = True
            if not self.gate.watched:
                log.warning("no_demand", operator=self._name, limit=self._limit)

    def cancel(self) -> None:
        """Dispose the subscription to the source; the gate stays as it is."""
        self._source.dispose()


class Downstream(Generic[R]):
    """
    The observer of an operator, the valve below it, and the end of the stream.

    An operator with one source is a :class:`Subscription`; others fill ``upstreams`` themselves.

    Args:
        observer: Gets what the operator emits.
        scheduler: May carry the valve of the subscriber.
        on_room: Called when the valve below has room, before the sources are asked.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[R],
        scheduler: abc.SchedulerBase | None,
        *,
        on_room: Callable[[], None] | None = None,
    ) -> None:
        self.loop = asyncio.get_running_loop()
        # For timers and tasks: they do not belong to the item in whose context they start.
        self.home = copy_context()
        self.observer = observer
        self.closed = False
        self.timer: asyncio.TimerHandle | None = None
        self.upstreams: tuple[Upstream[Any], ...] = ()
        valve = self.valve = valve_of(scheduler)
        below = self.below = bound_by(valve)
        # Before any gate listens: held items are emitted before the source is asked for more.
        self._link = None if below is None or on_room is None else below.listen(on_room)

    def clear(self) -> None:
        """Drop the held items, or give them back; called once, at the end."""

    def complete(self) -> None:
        """End with completion."""
        self._end(self.observer.on_completed)

    def fail(self, error: BaseException) -> None:
        """End at once with *error*."""
        self._end(self.observer.on_error, error)

    def dispose(self) -> None:
        """End without notifying the observer."""
        self._end(None)

    def _end(self, tell: Callable[..., None] | None, *error: BaseException) -> None:
        if self.closed:
            return
        self.closed = True
        for upstream in self.upstreams:
            upstream.cancel()
        if self._link is not None:
            self._link.dispose()
        if self.timer is not None:
            self.timer.cancel()
        try:
            self.clear()
            if tell is not None:
                tell(*error)
        finally:
            self.open_gates()

    def open_gates(self) -> None:
        """Open the gates for good, so that a closed operator holds up no source; called once."""
        for upstream in self.upstreams:
            upstream.gate.dispose()


class Subscription(Downstream[R], Generic[S, R]):
    """
    One subscription of an operator to one source.

    A subclass defines :meth:`room`, :meth:`on_next` and :meth:`clear`, and more where it must. When
    it holds more items than it has room for, it calls ``upstream.check_demand()``; in code that
    runs for each item, only while ``upstream.demand_checked`` is False.

    Args:
        name: The operator, for the log.
        limit: The most items it holds; None for no limit: then :meth:`room` is not called, and
            the operator itself never holds up the source.
        observer: Gets what the operator emits.
        scheduler: May carry the valve of the subscriber.
        on_room: Called when the valve below has room, before the source is asked.
    """

    def __init__(
        self,
        name: str,
        limit: int | None,
        observer: abc.ObserverBase[R],
        scheduler: abc.SchedulerBase | None,
        *,
        on_room: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(observer, scheduler, on_room=on_room)
        room = None if limit is None else self.room
        self.upstream: Upstream[S] = Upstream(name, limit, room, self.valve, fail=self.fail)
        self.upstreams = (self.upstream,)
        self.gate = self.upstream.gate

    def connect(self, source: Observable[S]) -> abc.DisposableBase:
        """Subscribe to *source*; the disposable ends everything."""
        self.upstream.connect(source, self.on_next, self.on_error, self.on_completed)
        return Disposable(self.dispose)

    def room(self) -> int:
        """How many more items the operator can take now, whatever the valve below says."""
        raise NotImplementedError

    def on_next(self, item: S, /) -> None:
        """Take an item."""
        raise NotImplementedError

    def on_error(self, error: Exception) -> None:
        """The source has failed: end with its error."""
        self.fail(error)

    def on_completed(self) -> None:
        """The source has completed: end too."""
        self.complete()


class Connectable(Protocol[S_contra]):
    """What an operator makes for each subscriber."""

    def connect(self, source: Observable[S_contra], /) -> abc.DisposableBase:
        """Subscribe to *source*; the disposable ends everything."""
        ...


def operator_of(
    make: Callable[[abc.ObserverBase[R], abc.SchedulerBase | None], Connectable[S]],
) -> Callable[[Observable[S]], Observable[R]]:
    """Return the operator that makes a subscription with *make* for each subscriber."""

    def operator(source: Observable[S]) -> Observable[R]:
        def subscribe(
            observer: abc.ObserverBase[R], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return make(observer, scheduler).connect(source)

        return Stream(subscribe)

    return operator
