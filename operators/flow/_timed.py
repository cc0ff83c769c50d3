"""What ``rate_limit`` and ``delay_until`` have in common: items that wait for their time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.log import get_logger
from rxdispatch.valve import Gate, bound_by

__all__ = ["Timed"]

T = TypeVar("T")

log = get_logger(__name__)


class Timed(Generic[T]):
    """
    One subscription of an operator whose items go when the clock says so.

    An item goes when its time has come and there is room below. What is held goes under the
    ``contextvars`` it was pushed under.

    One timer serves all deadlines. Invariant: whenever a held item or the source waits for a
    time, a timer is set for no later than that time. A timer that is due but was not called yet
    counts as set, so whenever it fires it is set again for what waits then: the loop may be
    late, and what the timer was set for may have gone in between.

    What differs is which item is next and when: :meth:`keep`, :meth:`next_time`,
    :meth:`waits_until`, :meth:`take`, :meth:`room` and :meth:`count`.

    Args:
        name: What the log calls the operator.
        limit: How many items it is meant to hold, for the log.
        observer: Who gets the items.
    """

    def __init__(self, name: str, limit: int, observer: abc.ObserverBase[T]) -> None:
        self.loop = asyncio.get_running_loop()
        self.closed = False
        self._name = name
        self._limit = limit
        self.observer = observer
        self._home = copy_context()
        self.emitting = self.exhausted = self._warned = False
        # A timer may fire a hair early: no time is earlier than what the last one was set for.
        self._reached = float("-inf")
        self._timer: asyncio.TimerHandle | None = None
        self._source = SingleAssignmentDisposable()

    def connect(
        self, source: Observable[T], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        """Subscribe to *source*; the disposable ends everything."""
        valve = valve_of(scheduler)
        below = self._below = bound_by(valve)
        # Before the gate listens: what is held goes first, the source is asked after.
        self._link = None if below is None else below.listen(self.drain)
        self._gate = Gate(self.room, valve, fail=self.on_error)
        self._source.disposable = source.subscribe(
            self.on_next,
            self.on_error,
            self.on_completed,
            scheduler=LoopScheduler(self.loop, valve=self._gate),
        )
        return Disposable(self.dispose)

    # ------------------------------------------------ what the operators do in their own way

    def keep(self, item: T, context: Context) -> bool:
        """Take *item* in; True if it may be the next to go. An exception ends the stream."""
        raise NotImplementedError

    def next_time(self) -> float:
        """When the next item may go; asked only while something is held and nothing may go."""
        raise NotImplementedError

    def waits_until(self) -> float | None:
        """The next time at which an item or the source has to go on; None if none waits."""
        raise NotImplementedError

    def ready(self, now: float) -> int:
        """How many of those that are held may go now."""
        raise NotImplementedError

    def take(self) -> tuple[T, Context]:
        """Take out the first of those that may go."""
        raise NotImplementedError

    def room(self) -> int:
        """How many more items the operator asks for now."""
        raise NotImplementedError

    def count(self) -> int:
        """How many items are held."""
        raise NotImplementedError

    def clear(self) -> None:
        """Forget what is held."""
        raise NotImplementedError

    # ------------------------------------------------ items

    def now(self) -> float:
        """Return the loop's time, which no timer of ours is ahead of."""
        return max(self.loop.time(), self._reached)

    def on_next(self, item: T) -> None:
        """Let *item* wait for its time, which may have come."""
        if self.closed:
            return
        try:
            first = self.keep(item, copy_context())
        except BaseException as error:
            # A function of the user, which may raise anything.
            self.on_error(error)  # type: ignore[arg-type]
            return
        if first:
            self.drain()
        if self._warned or self._gate.watched or self.count() <= self._limit:
            return
        self._warned = True
        log.warning("no_demand", operator=self._name, limit=self._limit)

    def drain(self) -> None:
        """Emit what may go now, and see to it that the rest goes in time."""
        # An emission that leads to another one must not overtake itself.
        if self.emitting or self.closed:
            return
        self.emitting = True
        try:
            while not self.closed:
                ready = self.ready(self.now())
                if not ready:
                    if self.count():
                        self.wake_at(self.next_time())
                    break
                # Without room the valve below calls again when there is some.
                if not self._emit(ready):
                    break
        except BaseException:
            # The subscriber raised; what is behind is due all the same.
            self.resume_soon()
            raise
        finally:
            self.emitting = False
        if self.exhausted and not self.count():
            self._end(self.observer.on_completed)

    def _emit(self, ready: int) -> bool:
        """Emit so many; False when there is no more room below."""
        take, on_next = self.take, self.observer.on_next
        for _ in range(ready):
            if not self.open():
                return False
            item, context = take()
            context.run(on_next, item)
            if self.closed:
                break
        return True

    def open(self) -> bool:
        """Tell whether there is room below."""
        return self._below is None or self._below.room() > 0

    # ------------------------------------------------ time

    def wake_at(self, when: float) -> None:
        """Have :meth:`drain` called at *when*, and the source asked, unless that is so already."""
        timer = self._timer
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self._timer = self.loop.call_at(when, self._on_timer, when, context=self._home.copy())

    def _on_timer(self, when: float) -> None:
        self._timer = None
        self._reached = max(self._reached, when)
        try:
            self.resume()
        finally:
            due = None if self.closed else self.waits_until()
            if due is not None:
                self.wake_at(due)

    def resume_soon(self) -> None:
        """Have :meth:`resume` called with the loop's next turn."""
        self.loop.call_soon(self.resume, context=self._home.copy())

    def resume(self) -> None:
        """Go on with what is held, then ask the source for more."""
        try:
            self.drain()
        finally:
            if not self.closed and not self.exhausted and self.room() > 0:
                self._gate.opened()

    # ------------------------------------------------ the end

    def on_completed(self) -> None:
        """Complete as soon as nothing is held."""
        self.exhausted = True
        self.drain()

    def on_error(self, error: Exception) -> None:
        """End at once with *error*; what is held is dropped."""
        held = self.count()
        if held and not self.closed:
            log.warning("items_dropped", operator=self._name, reason="error", items=held)
        self._end(self.observer.on_error, error)

    def dispose(self) -> None:
        """End without a word."""
        self._end(_nothing)

    def _end(self, tell: Callable[..., Any], *facts: Exception) -> None:
        if self.closed:
            return
        self.closed = True
        self._source.dispose()
        if self._link is not None:
            self._link.dispose()
        if self._timer is not None:
            self._timer.cancel()
        self.clear()
        try:
            tell(*facts)
        finally:
            self._gate.dispose()


def _nothing() -> None:
    """Tell nobody."""
