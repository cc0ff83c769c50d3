"""``QueueDrain``: the queue of items on their way to one observer."""

from __future__ import annotations

import sys
from collections import deque
from contextvars import Context, copy_context
from typing import Protocol, TypeVar

from reactivex import abc

from rxdispatch.operators._subscription import Downstream
from rxdispatch.overflow import Drops, Overflow, make_room

__all__ = ["DrainQueue", "Fifo", "QueueDrain", "Queued"]

T = TypeVar("T")

Queued = tuple[T, Context]
"""An item, and the context it was pushed under."""


class DrainQueue(Protocol[T]):
    """A queue where items wait; it decides which one is next."""

    def __len__(self) -> int: ...

    def put(self, entry: Queued[T], /) -> None:
        """Take *entry* in."""
        ...

    def take(self) -> Queued[T]:
        """Take out the next one."""
        ...

    def clear(self) -> None:
        """Drop all."""
        ...


class Fifo(deque[Queued[T]]):
    """First come, first served."""

    put = deque[Queued[T]].append
    take = deque[Queued[T]].popleft


class QueueDrain(Downstream[T]):
    """
    Emits items to *observer* while it is not busy, and keeps them in a queue while it is.

    The observer is busy while the valve below it has no room, and while its ``on_next`` is still
    running: so an item that an emission leads to never overtakes that emission. As long as
    something waits the observer is busy, so with *size* >= 1 an item overflows only when it could
    not have been emitted.

    Args:
        observer: Gets the items.
        scheduler: May carry the valve of the subscriber.
        waiting: The queue.
        drops: Counts the items that are dropped.
        size: How many may wait; None for any number.
        overflow: What happens to items that do not fit. With ``"wait"`` they are kept: the
            operator closes its valve in time.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
        waiting: DrainQueue[T],
        *,
        drops: Drops,
        size: int | None = None,
        overflow: Overflow[T] = "wait",
    ) -> None:
        super().__init__(observer, scheduler, on_room=self.drain)
        self.waiting = waiting
        self._drops = drops
        self._most = sys.maxsize if size is None or overflow == "wait" else size
        self._overflow: Overflow[T] = overflow
        self._emitting = self._exhausted = self._some_left = False

    def on_left(self) -> None:
        """React to items that have left the queue; called at the end of :meth:`drain`."""
        raise NotImplementedError

    # ------------------------------------------------ what comes in

    def push(self, item: T) -> None:
        """Emit *item*, keep it, or apply the overflow policy to it."""
        if self.keep(item) and ((below := self.below) is None or below.room() > 0):
            self.drain()

    def keep(self, item: T) -> bool:
        """Keep *item*, or apply the overflow policy; True when :meth:`drain` must be called."""
        waiting = self.waiting
        if self.closed or (len(waiting) >= self._most and not self._make_room(item)):
            return False
        try:
            waiting.put((item, copy_context()))
        except BaseException as error:
            # A function of the user, such as a key, which may raise anything.
            self.fail(error, 1)
            return False
        return not self._emitting

    def pass_on(self, item: T) -> bool:
        """Emit *item* at once, unless the observer is busy; True when that was done."""
        below = self.below
        if self._emitting or self.waiting or (below is not None and below.room() <= 0):
            return False
        self._emitting = True
        try:
            self.observer.on_next(item)
        except BaseException:
            # The subscriber raised; items that it pushed are still due, and so is the end.
            if self.waiting or self._exhausted:
                self._drain_soon()
            raise
        finally:
            self._emitting = False
        if self.waiting or self._exhausted:
            self.drain()
        return True

    def _make_room(self, item: T) -> bool:
        try:
            made = make_room(self._overflow, item, self._most, self._drops)
        except BaseException as error:
            self.fail(error, 1)
            return False
        if made:
            self.waiting.take()
        self._drops.arm(self.loop)
        return made

    # ------------------------------------------------ what goes out

    def drain(self) -> None:
        """Emit waiting items while there is room below."""
        if self._emitting or self.closed:
            return
        self._emitting = True
        waiting, below, on_next = self.waiting, self.below, self.observer.on_next
        try:
            while waiting:
                room = sys.maxsize if below is None else below.room()
                if room <= 0:
                    break
                # As many as there is room for before asking again: each question goes down the
                # whole chain of valves.
                while room > 0 and waiting:
                    room -= 1
                    try:
                        item, context = waiting.take()
                    except BaseException as error:
                        # Keys of the user are compared here.
                        self.fail(error)
                        return
                    self._some_left = True
                    context.run(on_next, item)
        except BaseException:
            self._drain_soon()
            raise
        finally:
            self._emitting = False
        if self.closed:
            return
        if self._exhausted and not waiting:
            self.complete()
        elif self._some_left:
            self._some_left = False
            self.on_left()

    def _drain_soon(self) -> None:
        # Not in the context of the item at which the subscriber raised.
        self.loop.call_soon(self.drain, context=self.home.copy())

    # ------------------------------------------------ the end

    def on_completed(self) -> None:
        """Complete as soon as nothing waits."""
        self._exhausted = True
        self.drain()

    def fail(self, error: BaseException, more: int = 0) -> None:
        """End at once with *error*; drop the queue, and *more* items that never got into it."""
        if not self.closed:
            self._drops.lost(len(self.waiting) + more)
            super().fail(error)

    def clear(self) -> None:
        """Drop the waiting items."""
        self.waiting.clear()
        self._drops.report()
