"""``QueueDrain``: what waits on its way to one observer."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Generic, Protocol, TypeVar

from reactivex import abc

from rxdispatch.errors import BufferOverflowError
from rxdispatch.overflow import Drops, Overflow
from rxdispatch.protocols import Valve
from rxdispatch.valve import bound_by

__all__ = ["Entry", "Fifo", "Queue", "QueueDrain"]

T = TypeVar("T")

Entry = tuple[T, Context]
"""An item, and the context it was pushed under."""


class Queue(Protocol[T]):
    """Where items wait; decides which one is next."""

    def __len__(self) -> int: ...

    def put(self, entry: Entry[T], /) -> None:
        """Take *entry* in."""
        ...

    def take(self) -> Entry[T]:
        """Take out the next one."""
        ...

    def clear(self) -> None:
        """Forget all."""
        ...


class Fifo(deque[Entry[T]]):
    """First come, first served."""

    put = deque[Entry[T]].append
    take = deque[Entry[T]].popleft


class QueueDrain(Generic[T]):
    """
    Hands items to *observer* while it is not busy, and keeps them while it is.

    The observer is busy while the valve below it has no room, and while it is still inside of
    ``on_next``: so an emission that leads to another one is never overtaken by it. As long as
    something waits the observer is busy, so *size* >= 1 means that nothing overflows that
    could have been handed on.

    Args:
        observer: Who gets the items.
        valve: The valve below, if any.
        waiting: Where they wait.
        size: How many may wait; None for as many as there are.
        overflow: What becomes of the others. With ``"wait"`` they are kept: it is for the
            operator to close its valve in time.
        drops: Where drops are counted.
        on_left: Called when some of those that waited have left.
        on_end: Called when the end has come, in whichever way, and the observer knows.
    """

    def __init__(
        self,
        observer: abc.ObserverBase[T],
        valve: Valve | None,
        waiting: Queue[T],
        *,
        drops: Drops,
        on_left: Callable[[], None],
        on_end: Callable[[], None],
        size: int | None = None,
        overflow: Overflow[T] = "wait",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._home = copy_context()
        self._observer = observer
        self.waiting = waiting
        self._drops = drops
        self._on_left = on_left
        self._on_end = on_end
        self._limit = sys.maxsize if size is None or overflow == "wait" else size
        self._overflow = overflow
        self._emitting = self._exhausted = self._some_left = False
        #: True from the end on.
        self.closed = False
        below = self._below = bound_by(valve)
        self._link = None if below is None else below.listen(self.drain)

    # ------------------------------------------------ what comes in

    def push(self, item: T) -> None:
        """Hand *item* on, keep it, or do with it as the policy says."""
        if self.keep(item) and ((below := self._below) is None or below.room() > 0):
            self.drain()

    def keep(self, item: T) -> bool:
        """Let *item* wait, or do with it as the policy says; True when it is for :meth:`drain`."""
        waiting = self.waiting
        if self.closed or (len(waiting) >= self._limit and not self._make_room(item)):
            return False
        try:
            waiting.put((item, copy_context()))
        except BaseException as error:
            # A function of the user, such as a key, which may raise anything.
            self.fail(error, 1)
            return False
        return not self._emitting

    def pass_on(self, item: T) -> bool:
        """Hand *item* on at once, unless the observer is busy; True when that was done."""
        below = self._below
        if self._emitting or self.waiting or (below is not None and below.room() <= 0):
            return False
        self._emitting = True
        try:
            self._observer.on_next(item)
        except BaseException:
            # The subscriber raised; what it led to is due all the same, and so is the end.
            if self.waiting or self._exhausted:
                self._drain_soon()
            raise
        finally:
            self._emitting = False
        if self.waiting or self._exhausted:
            self.drain()
        return True

    def _make_room(self, item: T) -> bool:
        overflow = self._overflow
        if overflow == "drop_oldest":
            self.waiting.take()
            self._drops.count()
            self._drops.arm(self._loop)
            return True
        if overflow == "drop_newest":
            self._drops.count()
            self._drops.arm(self._loop)
        elif overflow == "error":
            self.fail(BufferOverflowError(self._limit), 1)
        elif not isinstance(overflow, str):
            try:
                overflow(item)
            except BaseException as error:
                self.fail(error, 1)
        return False

    # ------------------------------------------------ what goes out

    def drain(self) -> None:
        """Hand on what waits, as far as there is room below."""
        if self._emitting or self.closed:
            return
        self._emitting = True
        waiting, below, on_next = self.waiting, self._below, self._observer.on_next
        try:
            while waiting:
                room = sys.maxsize if below is None else below.room()
                if room <= 0:
                    break
                # As many as there is room for before asking again: asking costs a whole chain.
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
            self._complete()
        elif self._some_left:
            self._some_left = False
            self._on_left()

    def _drain_soon(self) -> None:
        # Not under the context of the item whose subscriber raised.
        self._loop.call_soon(self.drain, context=self._home.copy())

    # ------------------------------------------------ the end

    def complete(self) -> None:
        """Complete as soon as nothing waits."""
        self._exhausted = True
        self.drain()

    def fail(self, error: BaseException, more: int = 0) -> None:
        """End at once with *error*; what waits is dropped, and *more* that did not get so far."""
        if self.closed:
            return
        self._drops.lost(len(self.waiting) + more)
        self._shut()
        try:
            self._observer.on_error(error)  # type: ignore[arg-type]
        finally:
            self._on_end()

    def close(self) -> None:
        """End without a word."""
        if not self.closed:
            self._shut()
            self._on_end()

    def _complete(self) -> None:
        self._shut()
        try:
            self._observer.on_completed()
        finally:
            self._on_end()

    def _shut(self) -> None:
        self.closed = True
        if self._link is not None:
            self._link.dispose()
        self.waiting.clear()
        self._drops.report()
