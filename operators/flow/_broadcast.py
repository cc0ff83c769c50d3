"""The ``broadcast`` operator: several subscribers, a queue for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.listeners import LEAVING, call_each, tell_each
from rxdispatch.log import get_logger
from rxdispatch.observable import Stream
from rxdispatch.operators.flow._queue_drain import Fifo, QueueDrain
from rxdispatch.overflow import Drops, Overflow, checked_overflow, checked_size, reason_of
from rxdispatch.valve import Gate

__all__ = ["broadcast"]

T = TypeVar("T")

log = get_logger(__name__)


def broadcast(
    size: int, overflow: Overflow[T] = "wait"
) -> Callable[[Observable[T]], Observable[T]]:
    """
    Share one subscription to the source among several subscribers, with a queue for each.

    ::

        --1--2--3--|
        [ broadcast(2) ]
        --1--2--3--|       one subscriber
        -----2-----3--|    another one that came later and is slower

    The source is subscribed to while anybody is subscribed, and again when somebody comes after
    all have left. Whoever comes late gets what comes from then on; after the completion, just
    that. After an error the next subscriber starts the source anew, so that ``retry_backoff``
    below works. The streams of this package begin with the loop's next turn, so all who
    subscribe in one turn get the same.

    Each subscriber has its own valve and lets up to *size* items wait while it is busy. With
    ``"wait"`` the slowest one holds up the source, and thereby the others, as soon as its queue
    is full; what a source that cannot wait pushes then is kept, and logged once as
    ``no_demand``. With the other policies the source is never held up, and each queue overflows
    by itself, as in ``buffer_bounded``.

    A subscriber that raises is logged as ``subscriber_failed`` and gets its error through
    ``on_error``; it harms no other, nor does one that leaves or overflows.

    Args:
        size: How many items may wait for each subscriber, at least 1.
        overflow: ``"wait"``, ``"drop_oldest"``, ``"drop_newest"``, ``"error"``, or a callable
            that is given the item that does not fit, as in ``buffer_bounded``.

    Raises:
        ConfigError: If an argument breaks its rule.

    Completion comes to each subscriber after what waits for it. An error comes at once, and
    what waits is dropped and logged.

    Example:
        >>> import reactivex
        >>> from reactivex import operators as rx
        >>> from reactivex.subject import Subject
        >>> source: Subject[int] = Subject()
        >>> async def main() -> list[list[int]]:
        ...     shared = source.pipe(broadcast(10))
        ...     one, two = [], []
        ...     shared.subscribe(one.append)
        ...     source.on_next(1)
        ...     shared.subscribe(two.append)
        ...     source.on_next(2)
        ...     return [one, two]
        >>> asyncio.run(main())
        [[1, 2], [2]]
    """
    checked_size(size)
    checked_overflow(overflow)

    def operator(source: Observable[T]) -> Observable[T]:
        hub = _Hub(source, size, overflow)
        return Stream(hub.subscribe)

    return operator


class _Hub(Generic[T]):
    """What all subscribers of one broadcast share."""

    def __init__(self, source: Observable[T], size: int, overflow: Overflow[T]) -> None:
        self.source = source
        self.size = size
        self.overflow: Overflow[T] = overflow
        self.reason = reason_of(overflow)
        self.connection: _Connection[T] | None = None
        self.completed = False
        # The source works for all subscribers: it starts in the context in which the shared
        # stream was made, not in that of the subscriber who happens to come first.
        self._home = copy_context()

    def subscribe(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        if self.completed:
            observer.on_completed()
            return Disposable()
        connection = self.connection
        if connection is not None:
            return connection.enter(observer, scheduler)
        connection = self.connection = _Connection(self)
        subscription = connection.enter(observer, scheduler)
        self._home.copy().run(connection.connect)
        return subscription


class _Connection(Generic[T]):
    """One subscription to the source, and those who are subscribed to it."""

    def __init__(self, hub: _Hub[T]) -> None:
        self._hub = hub
        self._loop = asyncio.get_running_loop()
        self._wait = hub.overflow == "wait"
        # Replaced, never changed: those who come or go while an item is handed around do not
        # disturb that.
        self._members: tuple[_Member[T], ...] = ()
        # What completed members have below them is still at work until its gate closes.
        self._finishing: list[Gate] = []
        self._full = self._completed = self._warned = False
        self._source = SingleAssignmentDisposable()
        self._gate = Gate(self._room if self._wait else None, None, fail=self._abort)

    def connect(self) -> None:
        self._source.disposable = self._hub.source.subscribe(
            self._on_next,
            self._on_error,
            self._on_completed,
            scheduler=LoopScheduler(self._loop, valve=self._gate),
        )

    def enter(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        valve = valve_of(scheduler)
        member = _Member(observer, valve.lowest if isinstance(valve, Gate) else None)
        member.outlet = QueueDrain(
            member,
            valve,
            Fifo(),
            drops=Drops("broadcast", self._hub.reason),
            on_left=self._on_left,
            on_end=lambda: self._leave(member),
            size=self._hub.size,
            overflow=self._hub.overflow,
        )
        self._members = (*self._members, member)
        return Disposable(member.outlet.close)

    def _room(self) -> int:
        held = max((len(member.outlet.waiting) for member in self._members), default=0)
        return self._hub.size - held

    # ------------------------------------------------ the source

    def _on_next(self, item: T) -> None:
        members = self._members
        if len(members) == 1 and members[0].outlet.pass_on(item):
            return
        # All get it in line before anybody is handed it: somebody may answer with a new item,
        # and that must not overtake this one.
        due = [member.outlet for member in members if member.outlet.keep(item)]
        if self._wait and (room := self._room()) <= 0:
            self._full = True
            if room < 0 and not self._warned and not self._gate.watched:
                self._warned = True
                log.warning("no_demand", operator="broadcast", size=self._hub.size)
        if len(due) == 1:
            due[0].drain()
        else:
            call_each([outlet.drain for outlet in due])

    def _on_completed(self) -> None:
        self._completed = self._hub.completed = True
        call_each([member.outlet.complete for member in self._members])

    def _on_error(self, error: Exception) -> None:
        self._forget()
        call_each([partial(member.outlet.fail, error) for member in self._members])

    # ------------------------------------------------ the subscribers

    def _on_left(self) -> None:
        """Tell the source of room, but only if there was none before."""
        if self._full and self._room() > 0:
            self._full = False
            self._gate.opened()

    def _leave(self, member: _Member[T]) -> None:
        self._members = tuple(one for one in self._members if one is not member)
        lowest = member.lowest
        if self._completed and lowest is not None and not lowest.closed:
            self._finishing.append(lowest)
            lowest.when_closed(lambda: self._finished(lowest))
        if self._members:
            self._on_left()
        else:
            self._forget()
            self._source.dispose()
            self._finished(None)

    def _finished(self, lowest: Gate | None) -> None:
        if lowest is not None:
            self._finishing.remove(lowest)
        if not self._members and not self._finishing:
            self._gate.dispose()

    def _forget(self) -> None:
        """Let the next subscriber begin a new connection."""
        if self._hub.connection is self:
            self._hub.connection = None

    def _abort(self, error: Exception) -> None:
        """End all that is below with *error*, also what the completion has passed already."""
        self._forget()
        call_each([partial(member.abort, error) for member in self._members])
        call_each([partial(lowest.fail, error) for lowest in self._finishing])


class _Member(abc.ObserverBase[T]):
    """A subscriber, whose exceptions concern nobody else."""

    outlet: QueueDrain[T]

    def __init__(self, observer: abc.ObserverBase[T], lowest: Gate | None) -> None:
        self._observer = observer
        self.lowest = lowest

    def abort(self, error: Exception) -> None:
        """End all that is below with *error*."""
        if self.lowest is None or not self.lowest.fail(error):
            self.outlet.fail(error)

    def on_next(self, value: T) -> None:
        try:
            self._observer.on_next(value)
        except LEAVING:
            raise
        except BaseException as error:
            log.error("subscriber_failed", source="broadcast", failure=error)
            self.outlet.fail(error)

    def on_error(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        except LEAVING:
            raise
        except BaseException as worse:
            log.error("subscriber_failed", source="broadcast", failure=worse)

    def on_completed(self) -> None:
        tell_each("broadcast", [self._observer.on_completed])
