"""``Ingress``: a bounded stream that producers put items into."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, TypeVar

from reactivex import abc
from reactivex.disposable import Disposable

from rxdispatch.callables import discard_unread, plain_function
from rxdispatch.errors import ConfigError, TaskRejectedError
from rxdispatch.listeners import LEAVING, tell_each
from rxdispatch.observable import Stream
from rxdispatch.overflow import (
    Drops,
    Overflow,
    checked_overflow,
    checked_size,
    make_room,
    reason_of,
)
from rxdispatch.streams._ingress_outlet import IngressOutlet, ItemQueue

__all__ = ["Ingress"]

T = TypeVar("T")


class Ingress(Stream[T]):
    """
    A bounded stream that producers put items into.

    It is an Observable with one subscriber at a time; ``broadcast`` serves more. The ingress emits
    items while the valve below has room, each in the ``contextvars`` context of its producer. Up
    to *size* items wait for room or for a subscriber. Items that one subscriber leaves behind wait
    for the next. Items of one producer keep their order.

    Args:
        size: How many items may wait, at least 1.
        overflow: What happens to an item that does not fit. With ``"wait"``, :meth:`put` waits
            for its turn and :meth:`offer` returns False. ``"drop_oldest"`` drops the item that
            has waited longest and ``"drop_newest"`` the one that does not fit; each burst is
            logged as ``items_dropped`` with the number of items. ``"error"`` raises
            ``BufferOverflowError``. A callable is called with the item, in the producer's thread.
        admit: A predicate that is called with each item, in the producer's thread, before the item
            gets a place. An item for which it returns False is refused. Use it to check the load,
            or the health of a service that the items depend on.

    Raises:
        ConfigError: If an argument breaks its rule.

    An error that a subscriber raises ends its stream; producers do not see it.

    Example:
        >>> from reactivex import operators as rx
        >>> from rxdispatch.streams import run
        >>> async def main() -> list[int] | None:
        ...     ingress = Ingress[int](2)
        ...     running = asyncio.create_task(run(ingress.pipe(rx.to_list())))
        ...     for n in range(5):
        ...         await ingress.put(n)
        ...     ingress.close()
        ...     return await running
        >>> asyncio.run(main())
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        size: int,
        *,
        overflow: Overflow[T] = "wait",
        admit: Callable[[T], bool] | None = None,
    ) -> None:
        super().__init__(self._enter)
        self._size = checked_size(size)
        self._overflow: Overflow[T] = checked_overflow(overflow)
        self._admit: Callable[[T], bool] | None = None
        if admit is not None:
            if not callable(admit):
                raise ConfigError("admit must be callable or None", admit)
            # A coroutine function would count as True: its coroutine is truthy.
            self._admit = plain_function("admit", admit)
        self._drops = Drops("ingress", reason_of(overflow))
        # INVARIANT, while the lock is free: each place is free, or promised to a put that has
        # not woken up yet, or taken by an item that waits. So with "drop_oldest", where no put
        # waits, there is something to drop whenever no place is free. These four change only
        # under the lock. An item leaves its place in the same step that gives the place to
        # another producer, as other threads take places too. After `_put_beyond_size`, `_free` is
        # negative and no place is promised.
        self._lock = threading.Lock()
        self._free: int = size
        self._queue: ItemQueue[T] = deque()
        self._closed = self._waking = False
        # Only the loop uses the rest. A waiting put wakes up with True when a place is promised
        # to it, and with False when the ingress is closed.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._puts: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self._empty_waiters: set[asyncio.Future[None]] = set()
        self._outlet: IngressOutlet[T] | None = None
        self._pumping = False
        # For calls that belong to no producer: a copy of the subscriber's context.
        self._context = Context()

    # ------------------------------------------------ producers

    async def put(self, item: T) -> None:
        """
        Put *item* in; with ``overflow="wait"``, wait for a place.

        Puts get places in the order of their calls. If a put is cancelled, its item is not in the
        stream, and its place goes to the next put.

        Raises:
            TaskRejectedError: If the ingress is closed, or closes while this waits, or if *admit*
                refuses the item.
            BufferOverflowError: With ``overflow="error"``, if there is no place.
        """
        loop = self._bind()
        self._check_admitted(item)
        if self._take_in(item):
            self._pump()
        elif self._overflow == "wait":
            await self._wait_for_place(loop)
            with self._lock:
                closed = self._closed
                if not closed:
                    self._queue.append((item, copy_context()))
            if closed:
                self._release_place()
                self._notify_if_empty()
                raise TaskRejectedError("the ingress is closed")
            self._pump()

    def offer(self, item: T) -> bool:
        """
        Put *item* in if there is a place now, and return whether it was put in.

        Call it on the loop's thread. If it returns False with ``overflow="wait"``, you still have
        the item, and may offer it again. Any other policy has handled the item.

        Raises:
            TaskRejectedError: If the ingress is closed, or if *admit* refuses the item.
            BufferOverflowError: With ``overflow="error"``, if there is no place.
        """
        self._bind()
        self._check_admitted(item)
        taken = self._take_in(item)
        self._pump()
        return taken

    def offer_threadsafe(self, item: T) -> bool:
        """
        Do the same as :meth:`offer`, from any thread and without waiting for the loop.

        The result is final: after True, the item has its place. The loop emits the item once a
        subscriber or a producer on the loop has bound the ingress to that loop.
        """
        self._check_admitted(item)
        taken = self._take_in(item)
        with self._lock:
            # One call on the loop serves all items that arrive before it runs.
            loop, awaking = self._loop, self._waking
            self._waking = loop is not None
        if loop is not None and not awaking:
            try:
                loop.call_soon_threadsafe(self._wake, context=self._context)
            except RuntimeError:
                # The loop is closed; the items wait for the next loop.
                if not loop.is_closed():
                    raise
        return taken

    def close(self) -> None:
        """
        Accept no more items; the stream completes once the waiting items have been emitted.

        Puts that wait for a place raise ``TaskRejectedError``. Call it on the loop's thread; a
        second call does nothing.
        """
        with self._lock:
            self._closed = True
        while self._puts:
            put, _ = self._puts.popitem(last=False)
            if not put.done():
                put.set_result(False)
        self._drops.report()
        self._pump()

    async def wait_empty(self) -> None:
        """
        Wait until the subscriber has received every item that was taken in.

        Then no item waits here, no put waits for a place, and ``on_next`` of the subscriber has
        returned for every item. The operators below may still work on items; ``run`` and
        ``KillSwitch.drain`` wait for them. While nothing is subscribed, items wait, and so does
        this call. The stream stays open.
        """
        loop = self._bind()
        if self._idle():
            return
        empty: asyncio.Future[None] = loop.create_future()
        self._empty_waiters.add(empty)
        try:
            await empty
        finally:
            self._empty_waiters.discard(empty)

    @property
    def waiting(self) -> int:
        """How many items wait to be emitted."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """How many items the overflow policy has dropped."""
        return self._drops.total

    @property
    def closed(self) -> bool:
        """Whether it is closed."""
        return self._closed

    # Of the methods below, ingresses that delay, broadcast or spill override `_check_admitted`,
    # `_take_in`, `_free_place`, `_idle`, `_ready`, `_exhausted`, `_enter` and `_pump`.

    # ------------------------------------------------ places

    def _check_admitted(self, item: T) -> None:
        if self._closed:
            raise TaskRejectedError("the ingress is closed")
        if self._admit is None:
            return
        verdict: Any = self._admit(item)
        if kind := discard_unread(verdict):
            raise TypeError(f"admit must return True or False, got a {kind}")
        if not verdict:
            raise TaskRejectedError("admit refused the item")

    def _take_in(self, item: T) -> bool:
        """Put *item* in the queue, or apply the overflow policy; in any thread."""
        entry = (item, copy_context())
        overflow = self._overflow
        with self._lock:
            if self._closed:
                raise TaskRejectedError("the ingress is closed")
            if self._free > 0:
                self._free -= 1
                self._queue.append(entry)
                return True
            if not callable(overflow):
                made = make_room(overflow, item, self._size, self._drops)
                if made:
                    self._queue.popleft()
                    self._queue.append(entry)
                return made
        # The user's function must not run while the lock is held.
        return make_room(overflow, item, self._size, self._drops)

    async def _wait_for_place(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for a promised place."""
        put: asyncio.Future[bool] = loop.create_future()
        self._puts[put] = None
        try:
            promised = await put
        except BaseException:
            self._puts.pop(put, None)
            if put.done() and not put.cancelled() and put.result():
                # Promised and cancelled in the same turn: the place goes to the next put.
                self._release_place()
            self._notify_if_empty()
            raise
        if not promised:
            raise TaskRejectedError("the ingress is closed")

    def _release_place(self) -> None:
        """Give up a promised place."""
        with self._lock:
            self._free_place()

    def _free_place(self) -> None:
        """Promise a place to the put that has waited longest; the caller holds the lock."""
        while self._puts and self._free >= 0:
            put, _ = self._puts.popitem(last=False)
            if not put.done():
                put.set_result(True)
                return
        self._free += 1

    def _put_beyond_size(self, item: T) -> None:
        """Put *item* in even if no place is free or the ingress is closed."""
        with self._lock:
            self._free -= 1
            self._queue.append((item, copy_context()))
        self._pump()

    def _idle(self) -> bool:
        return self._free == self._size and not self._puts and not self._pumping

    def _notify_if_empty(self) -> None:
        if self._empty_waiters and self._idle():
            for empty in self._empty_waiters:
                if not empty.done():
                    empty.set_result(None)

    # ------------------------------------------------ the loop

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Bind to the running loop."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("an ingress must be used on one loop, got another one")
            with self._lock:
                self._loop = loop
                self._waking = False
                # Places promised to puts of the old loop are free again.
                self._free = self._size - len(self._queue)
            self._puts.clear()
            self._empty_waiters.clear()
            self._outlet = None
            # Its timer belongs to the old loop.
            self._drops.report()
        return loop

    def _ready(self) -> bool:
        """Whether the next item may be emitted now."""
        return len(self._queue) > 0

    def _exhausted(self) -> bool:
        """Whether a closed ingress has nothing left to emit."""
        return not self._queue

    def _wake(self) -> None:
        with self._lock:
            self._waking = False
        self._pump()

    # ------------------------------------------------ the subscriber

    def _enter(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        loop = self._bind()
        if self._outlet is not None:
            observer.on_error(
                ConfigError("an ingress has one subscriber at a time; broadcast serves more")
            )
            return Disposable()
        outlet = self._outlet = IngressOutlet(self._pump, observer, scheduler)
        self._context = copy_context()
        # In a later turn, so that the operators below can already dispose what this returns.
        loop.call_soon(self._pump, context=self._context)
        return Disposable(lambda: self._leave(outlet))

    def _leave(self, outlet: IngressOutlet[T]) -> None:
        outlet.close()
        if self._outlet is outlet:
            self._outlet = None
            self._drops.report()

    def _pump(self) -> None:
        """Emit waiting items while there is room below."""
        loop = self._loop
        # An emission may cause another call of this method, which must not emit out of order.
        if loop is None or self._pumping:
            return
        self._drops.arm(loop)
        self._pumping = True
        try:
            while (outlet := self._outlet) is not None and self._ready() and outlet.open():
                with self._lock:
                    item, context = self._queue.popleft()
                    self._free_place()
                try:
                    context.run(outlet.observer.on_next, item)
                except LEAVING:
                    # The items behind it must still be emitted.
                    loop.call_soon(self._pump, context=self._context)
                    raise
                except BaseException as error:
                    self._leave(outlet)
                    # In a turn of its own: if on_error raises too, no producer sees that error.
                    fail: Callable[..., None] = outlet.observer.on_error
                    loop.call_soon(fail, error, context=context)
        finally:
            self._pumping = False
            self._notify_if_empty()
        if (outlet := self._outlet) is not None and self._closed and self._exhausted():
            self._leave(outlet)
            tell_each("ingress", [outlet.observer.on_completed])
