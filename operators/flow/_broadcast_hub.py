"""``BroadcastHub``: one subscription to a source, shared by several subscribers."""

from __future__ import annotations

from contextvars import copy_context
from functools import partial
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.listeners import LEAVING, call_each, tell_each
from rxdispatch.log import get_logger
from rxdispatch.operators._subscription import Upstream
from rxdispatch.operators.flow._queue_drain import Fifo, QueueDrain
from rxdispatch.overflow import Drops, Overflow, reason_of
from rxdispatch.valve import Gate

__all__ = ["BroadcastHub"]

T = TypeVar("T")

log = get_logger(__name__)


class BroadcastHub(Generic[T]):
    """
    What all subscribers of one broadcast share.

    Args:
        source: What to subscribe to while there are subscribers.
        size: How many items may wait for each subscriber.
        overflow: What happens to items that do not fit.
    """

    def __init__(self, source: Observable[T], size: int, overflow: Overflow[T]) -> None:
        self.source = source
        self.size = size
        self.overflow: Overflow[T] = overflow
        self.reason = reason_of(overflow)
        self.connection: _Connection[T] | None = None
        self.completed = False
        # The source works for all subscribers: it starts in the context in which the shared
        # stream was made, not in that of the subscriber that happens to come first.
        self._home = copy_context()

    @property
    def waiting(self) -> bool:
        """Whether an item waits for any subscriber."""
        connection = self.connection
        return connection is not None and any(member.waiting for member in connection.members)

    def subscribe(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        """Subscribe *observer*, and the hub to the source if it is the first."""
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
    """One subscription to the source, and its subscribers."""

    def __init__(self, hub: BroadcastHub[T]) -> None:
        self.hub = hub
        self._wait = hub.overflow == "wait"
        # Replaced, never changed, so that members may come and go while an item is emitted.
        self.members: tuple[_Member[T], ...] = ()
        # Streams below completed members are still at work until their gates close.
        self._finishing: list[Gate] = []
        self._full = self._completed = False
        room = self._room if self._wait else None
        self._upstream: Upstream[T] = Upstream("broadcast", hub.size, room, None, fail=self._abort)

    def connect(self) -> None:
        self._upstream.connect(self.hub.source, self._on_next, self._on_error, self._on_completed)

    def enter(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        contained = _ContainedObserver(observer)
        member = contained.member = _Member(self, contained, scheduler)
        self.members = (*self.members, member)
        return Disposable(member.dispose)

    def _room(self) -> int:
        held = max((len(member.waiting) for member in self.members), default=0)
        return self.hub.size - held

    # ------------------------------------------------ the source

    def _on_next(self, item: T) -> None:
        members = self.members
        if len(members) == 1 and members[0].pass_on(item):
            return
        # All queues get the item before any subscriber does: a subscriber may push a new item in
        # response, which must not overtake this one.
        due = [member for member in members if member.keep(item)]
        if self._wait and (room := self._room()) <= 0:
            self._full = True
            if room < 0 and not self._upstream.demand_checked:
                self._upstream.check_demand()
        if len(due) == 1:
            due[0].drain()
        else:
            call_each([member.drain for member in due])

    def _on_completed(self) -> None:
        self._completed = self.hub.completed = True
        call_each([member.on_completed for member in self.members])

    def _on_error(self, error: Exception) -> None:
        self._forget()
        call_each([partial(member.fail, error) for member in self.members])

    # ------------------------------------------------ the subscribers

    def ask(self) -> None:
        """Ask the source for more, but only if there was no room before."""
        if self._full and self._room() > 0:
            self._full = False
            self._upstream.gate.opened()

    def leave(self, member: _Member[T]) -> None:
        """Remove *member*, whose stream has ended; the last one disposes the source."""
        self.members = tuple(one for one in self.members if one is not member)
        lowest = member.lowest
        if self._completed and lowest is not None and not lowest.closed:
            self._finishing.append(lowest)
            lowest.when_closed(lambda: self._finished(lowest))
        if self.members:
            self.ask()
        else:
            self._forget()
            self._upstream.cancel()
            self._finished(None)

    def _finished(self, lowest: Gate | None) -> None:
        if lowest is not None:
            self._finishing.remove(lowest)
        if not self.members and not self._finishing:
            self._upstream.gate.dispose()

    def _forget(self) -> None:
        """Let the next subscriber begin a new connection."""
        if self.hub.connection is self:
            self.hub.connection = None

    def _abort(self, error: Exception) -> None:
        """End all streams below with *error*, also completed ones that are still at work."""
        self._forget()
        call_each([partial(member.abort, error) for member in self.members])
        call_each([partial(lowest.fail, error) for lowest in self._finishing])


class _Member(QueueDrain[T]):
    """The queue of one subscriber; it leaves the connection when its stream ends."""

    def __init__(
        self,
        connection: _Connection[T],
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        hub = connection.hub
        drops = Drops("broadcast", hub.reason)
        super().__init__(
            observer, scheduler, Fifo(), drops=drops, size=hub.size, overflow=hub.overflow
        )
        self._connection = connection
        self.lowest = self.valve.lowest if isinstance(self.valve, Gate) else None

    def abort(self, error: Exception) -> None:
        """End all streams below with *error*."""
        if self.lowest is None or not self.lowest.fail(error):
            self.fail(error)

    def on_left(self) -> None:
        """Tell the connection that there is room."""
        self._connection.ask()

    def open_gates(self) -> None:
        """Leave the connection, which owns the gate."""
        self._connection.leave(self)


class _ContainedObserver(abc.ObserverBase[T]):
    """A subscriber whose exceptions end its own stream and reach no other."""

    member: _Member[T]

    def __init__(self, observer: abc.ObserverBase[T]) -> None:
        self._observer = observer

    def on_next(self, value: T) -> None:
        try:
            self._observer.on_next(value)
        except LEAVING:
            raise
        except BaseException as error:
            log.error("subscriber_failed", source="broadcast", failure=error)
            self.member.fail(error)

    def on_error(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        except LEAVING:
            raise
        except BaseException as worse:
            log.error("subscriber_failed", source="broadcast", failure=worse)

    def on_completed(self) -> None:
        tell_each("broadcast", [self._observer.on_completed])
