"""``Probe`` and ``Supply``: a subscriber and a source with demand, for tests."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.checks import integer
from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.valve import Gate

__all__ = ["Probe", "Supply"]

T = TypeVar("T")


class Probe(abc.ObserverBase[Any]):
    """
    A subscriber that records items and times, with a valve that the test opens and closes.

    Create and use it on a running loop. Subscribe with :meth:`watch`, so that the source sees its
    valve, or pass the probe to ``subscribe`` if demand does not matter.

    Args:
        room: How many items it accepts before its valve closes; None for any number.
        on_item: Called with each item after it is recorded, inside the call of the source: to
            dispose the probe or make room at that moment, or to raise, as a subscriber may.

    Raises:
        ConfigError: If *room* is neither None nor an int >= 0.

    Example:
        >>> from rxdispatch.testing import run_virtual
        >>> async def main() -> list[int]:
        ...     supply = Supply(range(100))
        ...     probe = Probe(room=2).watch(supply)
        ...     await asyncio.sleep(1)
        ...     probe.open(1)
        ...     return [probe.items, probe.times, supply.sent]
        >>> run_virtual(main())
        [[0, 1, 2], [0.0, 0.0, 1.0], 3]
    """

    def __init__(
        self, room: int | None = None, *, on_item: Callable[[Any], object] | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = _checked("room", room)
        self._on_item = on_item
        self._gate = Gate(self._ask, None, fail=self._abort)
        self._subscription = SingleAssignmentDisposable()
        self._changed = asyncio.Event()
        #: The items received, with their times.
        self.events: list[tuple[float, Any]] = []
        #: Everything received, with its time: items, then the error, or ``"|"`` for completion.
        self.timeline: list[tuple[float, Any]] = []
        #: The error that ended the stream, if any.
        self.error: Exception | None = None
        #: Whether the stream has completed.
        self.completed = False
        #: The time on the loop's clock at which the stream ended; None before that.
        self.ended_at: float | None = None
        #: How many times a source asked for room.
        self.asked = 0
        #: How many items arrived without room.
        self.unasked = 0
        #: How many terminal events arrived; more than one is a bug.
        self.ends = 0

    # ------------------------------------------------ received

    @property
    def items(self) -> list[Any]:
        """The items, without their times."""
        return [item for _, item in self.events]

    @property
    def notifications(self) -> list[Any]:
        """Everything received, without times: items, then the error or ``"|"``."""
        return [what for _, what in self.timeline]

    @property
    def times(self) -> list[float]:
        """The times of the items, on the loop's clock."""
        return [when for when, _ in self.events]

    @property
    def ended(self) -> bool:
        """Whether the stream has completed or failed."""
        return self.ended_at is not None

    async def wait(self, items: int | None = None) -> None:
        """
        Wait until it has received *items* items in total, or until the stream has ended.

        Args:
            items: The number; None waits for the end.
        """
        while not self.ended and (items is None or len(self.events) < items):
            self._changed.clear()
            await self._changed.wait()

    # ------------------------------------------------ demand

    @property
    def room(self) -> int:
        """How many more items it accepts now."""
        return self._room

    def open(self, items: int | None = None) -> None:
        """
        Accept *items* more items, and notify the source.

        Args:
            items: The number; None for any number, until :meth:`close`.

        Raises:
            ConfigError: If *items* is neither None nor an int >= 0.
        """
        more = _checked("items", items)
        self._room = sys.maxsize if items is None else max(self._room, 0) + more
        self._gate.opened()

    def close(self) -> None:
        """Accept no more items until :meth:`open`."""
        self._room = 0

    # ------------------------------------------------ the subscription

    def watch(self, stream: Observable[Any]) -> Probe:
        """Subscribe to *stream* with this valve, and return the probe."""
        self._subscription.disposable = stream.subscribe(
            self, scheduler=LoopScheduler(self._loop, valve=self._gate)
        )
        return self

    def dispose(self) -> None:
        """End the subscription that :meth:`watch` made, and open the valve for good."""
        self._subscription.dispose()
        self._gate.dispose()

    def on_next(self, value: Any) -> None:
        """Record an item, then call *on_item*."""
        if self._room <= 0:
            self.unasked += 1
        elif self._room != sys.maxsize:
            self._room -= 1
        event = (self._loop.time(), value)
        self.events.append(event)
        self.timeline.append(event)
        self._changed.set()
        if self._on_item is not None:
            self._on_item(value)

    def on_error(self, error: Exception) -> None:
        """Record the error."""
        self.error = error
        self._end(error)

    def on_completed(self) -> None:
        """Record the completion."""
        self.completed = True
        self._end("|")

    def _ask(self) -> int:
        self.asked += 1
        return self._room

    def _abort(self, error: Exception) -> None:
        self._subscription.dispose()
        self.on_error(error)

    def _end(self, how: Exception | str) -> None:
        self.ends += 1
        self.ended_at = self._loop.time()
        self.timeline.append((self.ended_at, how))
        self._changed.set()
        self._gate.dispose()


def _checked(what: str, items: int | None) -> int:
    if items is None:
        return sys.maxsize
    integer(what, items, 0, instead=" or None")
    return items


class Supply(Observable[T]):
    """
    A source that respects demand: it emits items while there is room, and counts them.

    It emits inside the calls that subscribe to it or make room, and completes after the last
    item. Each subscription starts with a new iterator. Without a valve it emits everything at
    once.

    Args:
        items: The items.
        error: An error to end with, instead of completing.

    Example:
        >>> from rxdispatch.testing import run_virtual
        >>> async def main() -> int:
        ...     supply = Supply(range(100))
        ...     Probe(room=7).watch(supply)
        ...     return supply.sent
        >>> run_virtual(main())
        7
    """

    def __init__(self, items: Iterable[T], error: Exception | None = None) -> None:
        super().__init__()
        self._items = items
        self._error = error
        #: How many items it has emitted, over all subscriptions.
        self.sent = 0
        #: The most room that it has found; 0 if it never had to ask.
        self.most_room = 0
        #: How many subscriptions were made.
        self.subscribed = 0
        #: How many subscriptions have ended.
        self.disposed = 0

    def _subscribe_core(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        self.subscribed += 1
        return _Flow(self, iter(self._items), self._error, observer).begin(scheduler)


class _Flow(Generic[T]):
    """One subscription."""

    def __init__(
        self,
        supply: Supply[T],
        items: Iterator[T],
        error: Exception | None,
        observer: abc.ObserverBase[T],
    ) -> None:
        self._supply = supply
        self._items = items
        self._error = error
        self._observer = observer
        self._busy = self._again = self._ended = False

    def begin(self, scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        self._valve = valve_of(scheduler)
        link = None if self._valve is None else self._valve.listen(self._emit)
        self._emit()

        def dispose() -> None:
            self._ended = True
            self._supply.disposed += 1
            if link is not None:
                link.dispose()

        return Disposable(dispose)

    def _emit(self) -> None:
        # An emission may make room again, so this is a loop instead of a recursion.
        self._again = True
        if self._busy:
            return
        self._busy = True
        try:
            while self._again and not self._ended:
                self._again = False
                self._emit_some()
        finally:
            self._busy = False

    def _emit_some(self) -> None:
        supply, valve = self._supply, self._valve
        while not self._ended:
            if valve is not None:
                room = valve.room()
                if room <= 0:
                    return
                supply.most_room = max(supply.most_room, room)
            try:
                item = next(self._items)
            except StopIteration:
                self._ended = True
                if self._error is None:
                    self._observer.on_completed()
                else:
                    self._observer.on_error(self._error)
                return
            supply.sent += 1
            self._observer.on_next(item)
