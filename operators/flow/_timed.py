"""``Timed``: the base of ``rate_limit`` and ``delay_until``, where items wait for their time."""

from __future__ import annotations

from contextvars import Context, copy_context
from typing import TypeVar

from reactivex import abc

from rxdispatch.log import get_logger
from rxdispatch.operators._subscription import Subscription

__all__ = ["Timed"]

T = TypeVar("T")

log = get_logger(__name__)


class Timed(Subscription[T, T]):
    """
    One subscription of an operator whose items wait for their time.

    An item is emitted when its time has come and there is room below, under the ``contextvars``
    it was pushed under.

    One timer serves all deadlines. Invariant: whenever a held item or the source waits for a
    time, a timer is set for no later than that time. A timer that is due but was not called yet
    counts as set, so whenever it fires it is set again for what waits then: the loop may be
    late, and the item that the timer was set for may have left in between.

    Subclasses decide which item is next and when: :meth:`keep`, :meth:`next_time`,
    :meth:`waits_until`, :meth:`ready`, :meth:`take`, :meth:`room` and :meth:`count`.

    Args:
        name: The operator, for the log.
        limit: The most items it holds, for the log.
        observer: Gets the items.
        scheduler: May carry the valve of the subscriber.
    """

    def __init__(
        self,
        name: str,
        limit: int,
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__(name, limit, observer, scheduler, on_room=self.drain)
        self._name = name
        self._limit = limit
        self.emitting = self.exhausted = False
        # A timer may fire slightly early: the time that it was set for counts as reached.
        self._reached = float("-inf")

    # ------------------------------------------------ what subclasses do in their own way

    def keep(self, item: T, context: Context) -> bool:
        """Take *item* in; True if it may be the next to go. An exception ends the stream."""
        raise NotImplementedError

    def next_time(self) -> float:
        """When the next item may go; asked only while something is held and nothing may go."""
        raise NotImplementedError

    def waits_until(self) -> float | None:
        """The next time at which an item or the source has to go on; None if neither waits."""
        raise NotImplementedError

    def ready(self, now: float) -> int:
        """How many of the held items may go now."""
        raise NotImplementedError

    def take(self) -> tuple[T, Context]:
        """Take out the first item that may go."""
        raise NotImplementedError

    def count(self) -> int:
        """How many items are held."""
        raise NotImplementedError

    # ------------------------------------------------ items

    def now(self) -> float:
        """Return the loop's time, but no less than the time of a timer that has fired."""
        return max(self.loop.time(), self._reached)

    def on_next(self, item: T) -> None:
        """Keep *item* until its time, which may have come."""
        if self.closed:
            return
        try:
            first = self.keep(item, copy_context())
        except BaseException as error:
            # A function of the user, which may raise anything.
            self.fail(error)
            return
        if first:
            self.drain()
        if not self.upstream.demand_checked and self.count() > self._limit:
            self.upstream.check_demand()

    def drain(self) -> None:
        """Emit what may go now, and set the timer for the rest."""
        # An emission may call this again; the inner call must not emit before the outer one ends.
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
            # The subscriber raised; the items behind this one are still due.
            self.resume_soon()
            raise
        finally:
            self.emitting = False
        if self.exhausted and not self.count():
            self.complete()

    def _emit(self, ready: int) -> bool:
        """Emit *ready* items; False when there is no more room below."""
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
        return self.below is None or self.below.room() > 0

    # ------------------------------------------------ time

    def wake_at(self, when: float) -> None:
        """Call :meth:`resume` at *when*, unless the timer is set for that time or earlier."""
        timer = self.timer
        if timer is not None:
            if timer.when() <= when:
                return
            timer.cancel()
        self.timer = self.loop.call_at(when, self._on_timer, when, context=self.home.copy())

    def _on_timer(self, when: float) -> None:
        self.timer = None
        self._reached = max(self._reached, when)
        try:
            self.resume()
        finally:
            due = None if self.closed else self.waits_until()
            if due is not None:
                self.wake_at(due)

    def resume_soon(self) -> None:
        """Call :meth:`resume` in the loop's next turn."""
        self.loop.call_soon(self.resume, context=self.home.copy())

    def resume(self) -> None:
        """Emit what may go, then ask the source for more."""
        try:
            self.drain()
        finally:
            if not self.closed and not self.exhausted and self.room() > 0:
                self.gate.opened()

    # ------------------------------------------------ the end

    def on_completed(self) -> None:
        """Complete as soon as nothing is held."""
        self.exhausted = True
        self.drain()

    def fail(self, error: BaseException) -> None:
        """End at once with *error*; held items are dropped."""
        held = self.count()
        if held and not self.closed:
            log.warning("items_dropped", operator=self._name, reason="error", items=held)
        super().fail(error)
