"""``Output``: the hot output of a pipeline, at the pace of its subscribers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.listeners import call_each
from rxdispatch.operators.flow._broadcast import broadcast
from rxdispatch.protocols import Valve
from rxdispatch.valve import Gate

__all__ = ["MIN_QUEUE", "Output"]

S = TypeVar("S")
T = TypeVar("T")

MIN_QUEUE: Final = 16
"""The smallest size of a queue, before a stage or for a subscriber, unless the user sets one."""


class Output(Generic[T]):
    """
    A hot stream that goes at the pace of its subscribers; without any, nothing slows it down.

    Args:
        size: How many items may wait for each subscriber.
    """

    def __init__(self, size: int) -> None:
        source: Observable[T] = Observable(self._enter)
        #: The stream.
        self.stream: Observable[T] = source.pipe(broadcast(size, "wait"))
        self._observer: abc.ObserverBase[T] | None = None
        self._valve: Valve | None = None
        self._on_room: list[Callable[[], None]] = []
        self._ended = False
        self._error: Exception | None = None

    @property
    def open(self) -> bool:
        """Whether it has a subscriber."""
        return self._observer is not None

    def emit(self, item: T) -> None:
        """Emit *item* to the current subscribers, if there are any."""
        if self._observer is not None:
            self._observer.on_next(item)

    def end(self, error: Exception | None = None) -> None:
        """Complete, or fail with *error*, for present and future subscribers."""
        self._ended, self._error = True, error
        observer = self._observer
        if observer is not None:
            self._say(observer)

    def gate(self, below: Valve | None, fail: Callable[[Exception], None] | None = None) -> Gate:
        """Return a valve that has room while the subscribers and *below* have room."""
        gate = Gate(self._room, below, fail=fail)
        self._on_room.append(gate.opened)
        return gate

    def throttle(self, source: Observable[S]) -> Observable[S]:
        """Return *source*, which is asked for items only while the subscribers have room."""

        def subscribe(
            observer: abc.ObserverBase[S], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            gate = self.gate(valve_of(scheduler))
            above = LoopScheduler(asyncio.get_running_loop(), valve=gate)
            subscription = source.subscribe(observer, scheduler=above)

            def dispose() -> None:
                subscription.dispose()
                gate.dispose()

            return Disposable(dispose)

        return Observable(subscribe)

    def _room(self) -> int:
        return sys.maxsize if self._valve is None else self._valve.room()

    def _opened(self) -> None:
        if len(self._on_room) == 1:
            self._on_room[0]()
        else:
            call_each(self._on_room)

    def _enter(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        if self._ended:
            self._say(observer)
            return Disposable()
        self._observer, self._valve = observer, valve_of(scheduler)
        link = None if self._valve is None else self._valve.listen(self._opened)

        def leave() -> None:
            if link is not None:
                link.dispose()
            if self._observer is observer:
                self._observer = self._valve = None
                self._opened()

        return Disposable(leave)

    def _say(self, observer: abc.ObserverBase[T]) -> None:
        if self._error is None:
            observer.on_completed()
        else:
            observer.on_error(self._error)
