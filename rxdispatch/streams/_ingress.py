"""``Ingress``: where items are put into a stream from outside."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from contextvars import Context, copy_context
from types import CoroutineType
from typing import Any, Generic, Protocol, TypeVar

from reactivex import abc
from reactivex.disposable import Disposable

from rxdispatch.callables import is_unread, plain_function
from rxdispatch.clock import valve_of
from rxdispatch.errors import BufferOverflowError, ConfigError, TaskRejectedError
from rxdispatch.listeners import LEAVING, tell_each
from rxdispatch.observable import Stream
from rxdispatch.overflow import Drops, Overflow, checked_overflow, checked_size, reason_of
from rxdispatch.valve import bound_by

__all__ = ["Ingress"]

T = TypeVar("T")


class Line(Protocol[T]):
    """In which order items leave that wait; a deque is one."""

    def __len__(self) -> int: ...

    def append(self, entry: tuple[T, Context], /) -> None: ...

    def popleft(self) -> tuple[T, Context]: ...


class Ingress(Stream[T]):
    """
    A bounded stream that producers put items into.

    It is an Observable, for one subscriber at a time; ``broadcast`` serves more. Items are
    handed on as the valve below has room, each under the ``contextvars`` it was put under; up to
    *size* wait for that, also while nobody is subscribed. What a subscriber leaves behind waits
    for the next one. Items of one producer keep their order, whatever others do.

    Args:
        size: How many items may wait, at least 1.
        overflow: What becomes of an item that does not fit. With ``"wait"``, :meth:`put` waits
            for its turn and :meth:`offer` returns False. ``"drop_oldest"`` drops the one that
            has waited longest and ``"drop_newest"`` the one that does not fit, each burst being
            logged as ``items_dropped`` with their number; ``"error"`` raises
            ``BufferOverflowError``; a callable is given the item, in the thread of its producer.
        admit: Asked about each item, in the thread of its producer and before it waits; if it
            says no, the item is refused. It is the place to look at load, or at the health of
            what the items depend on.

    Raises:
        ConfigError: If an argument breaks its rule.

    Whatever a subscriber raises ends its stream with this error; producers do not hear of it.

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
        if admit is not None and not callable(admit):
            raise ConfigError("admit must be callable or None", admit)
        # Else its coroutine would be taken for a yes.
        self._admit = None if admit is None else plain_function("admit", admit)
        self._drops = Drops("ingress", reason_of(overflow))
        # Invariant, wherever the lock is free: each place is free, or promised to a put that has
        # yet to wake up, or taken by an item that waits. So with "drop_oldest", where no put
        # waits, there is something to drop whenever no place is free. These four are changed
        # under the lock only, and an item leaves its place in the same step in which the place
        # goes to somebody else: other threads take places too.
        self._lock = threading.Lock()
        self._free: int = size
        self._queue: Line[T] = deque()
        self._closed = self._awaking = False
        # All else belongs to the loop. A waiting put wakes up to True when it is promised a
        # place, and to False when there will be none.
        self._loop: asyncio.AbstractEventLoop | None = None
        self._puts: OrderedDict[asyncio.Future[bool], None] = OrderedDict()
        self._joins: set[asyncio.Future[None]] = set()
        self._exit: _Exit[T] | None = None
        self._pumping = False
        # What the loop calls later belongs to no producer; a copy of the subscriber's context.
        self._home = Context()

    # ------------------------------------------------ producers

    async def put(self, item: T) -> None:
        """
        Put *item* in; with ``overflow="wait"`` wait until there is a place for it.

        Puts get their places in the order in which they came. If it is cancelled, the item is
        not in the stream and its place goes to the next.

        Raises:
            TaskRejectedError: If the ingress is closed, also while this waits, or if *admit*
                says no.
            BufferOverflowError: With ``overflow="error"``, if there is no place.
        """
        loop = self._bind()
        self._ask(item)
        if self._take_in(item):
            self._pump()
        elif self._overflow == "wait":
            await self._turn(loop)
            with self._lock:
                closed = self._closed
                if not closed:
                    self._queue.append((item, copy_context()))
            if closed:
                self._release()
                self._tell_joins()
                raise TaskRejectedError("the ingress is closed")
            self._pump()

    def offer(self, item: T) -> bool:
        """
        Put *item* in if there is a place for it now, and return whether that was done.

        Must be called on the loop's thread. What was refused because of ``"wait"`` is still the
        caller's; with the other policies it has been dealt with.

        Raises:
            TaskRejectedError: If the ingress is closed, or if *admit* says no.
            BufferOverflowError: With ``overflow="error"``, if there is no place.
        """
        self._bind()
        self._ask(item)
        taken = self._take_in(item)
        self._pump()
        return taken

    def offer_threadsafe(self, item: T) -> bool:
        """
        Do as :meth:`offer` from any thread, without waiting for the loop.

        The answer is final: an item that was taken has its place. It is handed on by the loop,
        once a subscriber or a producer has shown which one that is.
        """
        self._ask(item)
        taken = self._take_in(item)
        with self._lock:
            # One call of the loop serves all that come until it is made.
            loop, awaking = self._loop, self._awaking
            self._awaking = loop is not None
        if loop is not None and not awaking:
            try:
                loop.call_soon_threadsafe(self._awake, context=self._home)
            except RuntimeError:
                # The loop is closed; what is here waits for the next one.
                if not loop.is_closed():
                    raise
        return taken

    def close(self) -> None:
        """
        Take nothing more in; the stream completes after what waits.

        Puts that wait for a place raise. Must be called on the loop's thread; may be called
        again.
        """
        with self._lock:
            self._closed = True
        while self._puts:
            put, _ = self._puts.popitem(last=False)
            if not put.done():
                put.set_result(False)
        self._drops.report()
        self._pump()

    async def join(self) -> None:  # type: ignore[override]  # pyright: ignore[reportIncompatibleMethodOverride]
        """
        Wait until everything that was taken in has been handed to the subscriber.

        That is: nothing waits here, no put waits for a place, and ``on_next`` of the subscriber
        has returned for every item. What operators below then do with an item is not waited
        for; ``run`` and ``KillSwitch.drain`` do that. While nobody is subscribed, items wait and
        so does this. It does not close: the stream goes on.
        """
        loop = self._bind()
        if self._idle():
            return
        joined: asyncio.Future[None] = loop.create_future()
        self._joins.add(joined)
        try:
            await joined
        finally:
            self._joins.discard(joined)

    @property
    def waiting(self) -> int:
        """How many items wait to be handed on."""
        return len(self._queue)

    @property
    def dropped(self) -> int:
        """How many items were dropped so far."""
        return self._drops.total

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    # ------------------------------------------------ places

    def _ask(self, item: T) -> None:
        if self._closed:
            raise TaskRejectedError("the ingress is closed")
        if self._admit is None:
            return
        verdict: Any = self._admit(item)
        if is_unread(verdict):
            if verdict.__class__ is CoroutineType:
                verdict.close()
            raise TypeError(f"admit must return True or False, got a {type(verdict).__name__}")
        if not verdict:
            raise TaskRejectedError("admit said no")

    def _take_in(self, item: T) -> bool:
        """Put *item* in line, or do with it as the policy says; in any thread."""
        entry = (item, copy_context())
        overflow = self._overflow
        with self._lock:
            if self._closed:
                raise TaskRejectedError("the ingress is closed")
            if self._free > 0:
                self._free -= 1
                self._queue.append(entry)
                return True
            if overflow == "drop_oldest":
                self._queue.popleft()
                self._queue.append(entry)
                self._drops.count()
                return True
            if overflow == "drop_newest":
                self._drops.count()
        if overflow == "error":
            raise BufferOverflowError(self._size)
        if not isinstance(overflow, str):
            overflow(item)
        return False

    async def _turn(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait for a promised place."""
        put: asyncio.Future[bool] = loop.create_future()
        self._puts[put] = None
        try:
            promised = await put
        except BaseException:
            self._puts.pop(put, None)
            if put.done() and not put.cancelled() and put.result():
                # The promise came with the cancellation: it goes to the next.
                self._release()
            self._tell_joins()
            raise
        if not promised:
            raise TaskRejectedError("the ingress is closed")

    def _release(self) -> None:
        """Give up a place that was promised."""
        with self._lock:
            self._pass_place_on()

    def _pass_place_on(self) -> None:
        """Promise a place to the put that has waited longest; called with the lock."""
        while self._puts:
            put, _ = self._puts.popitem(last=False)
            if not put.done():
                put.set_result(True)
                return
        self._free += 1

    def _idle(self) -> bool:
        return self._free == self._size and not self._puts and not self._pumping

    def _tell_joins(self) -> None:
        if self._joins and self._idle():
            for joined in self._joins:
                if not joined.done():
                    joined.set_result(None)

    # ------------------------------------------------ the loop

    def _bind(self) -> asyncio.AbstractEventLoop:
        """Belong to the running loop from now on."""
        loop = asyncio.get_running_loop()
        if self._loop is not loop:
            if self._loop is not None and not self._loop.is_closed():
                raise RuntimeError("an ingress must be used on one loop, got another one")
            with self._lock:
                self._loop = loop
                self._awaking = False
                # What was promised to puts of the old loop.
                self._free = self._size - len(self._queue)
            self._puts.clear()
            self._joins.clear()
            self._exit = None
            # Its timer belongs to the old loop.
            self._drops.report()
        return loop

    def _ready(self) -> bool:
        """Whether an item may go now."""
        return len(self._queue) > 0

    def _over(self) -> bool:
        """Whether nothing comes after :meth:`close` any more."""
        return not self._queue

    def _awake(self) -> None:
        with self._lock:
            self._awaking = False
        self._pump()

    # ------------------------------------------------ the subscriber

    def _enter(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        loop = self._bind()
        if self._exit is not None:
            observer.on_error(
                ConfigError("an ingress has one subscriber at a time; broadcast serves more")
            )
            return Disposable()
        way_out = self._exit = _Exit(self._pump, observer, scheduler)
        self._home = copy_context()
        # In a later turn, when those below can dispose what this returns.
        loop.call_soon(self._pump, context=self._home)
        return Disposable(lambda: self._leave(way_out))

    def _leave(self, way_out: _Exit[T]) -> None:
        way_out.close()
        if self._exit is way_out:
            self._exit = None
            self._drops.report()

    def _pump(self) -> None:
        """Hand on what waits, as far as there is room below."""
        loop = self._loop
        # An emission that leads to another one must not overtake itself.
        if loop is None or self._pumping:
            return
        self._drops.arm(loop)
        self._pumping = True
        try:
            while (way_out := self._exit) is not None and self._ready() and way_out.open():
                with self._lock:
                    item, context = self._queue.popleft()
                    self._pass_place_on()
                try:
                    context.run(way_out.observer.on_next, item)
                except LEAVING:
                    # What waits behind it is still due.
                    loop.call_soon(self._pump, context=self._home)
                    raise
                except BaseException as error:
                    self._leave(way_out)
                    # In a turn of its own: should it raise too, no producer hears of it.
                    fail: Callable[..., None] = way_out.observer.on_error
                    loop.call_soon(fail, error, context=context)
        finally:
            self._pumping = False
            self._tell_joins()
        if (way_out := self._exit) is not None and self._closed and self._over():
            self._leave(way_out)
            tell_each("ingress", [way_out.observer.on_completed])


class _Exit(Generic[T]):
    """Where the items go."""

    def __init__(
        self,
        pump: Callable[[], None],
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self.observer = observer
        self._below = bound_by(valve_of(scheduler))
        self._link = None if self._below is None else self._below.listen(pump)

    def open(self) -> bool:
        return self._below is None or self._below.room() > 0

    def close(self) -> None:
        if self._link is not None:
            self._link.dispose()
