"""``from_async_iterable``: a stream of the items of an async iterable, at the pace of demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.clock import valve_of
from rxdispatch.errors import ConfigError
from rxdispatch.listeners import LEAVING
from rxdispatch.log import get_logger
from rxdispatch.streams._single_use import stream_of
from rxdispatch.valve import bound_by

__all__ = ["from_async_iterable"]

T = TypeVar("T")

log = get_logger(__name__)

TURN = 64
"""The number of items after which other tasks get a turn, if the iterable never waits."""

# The loop holds tasks only weakly, and a task that closes its iterable has no other owner.
_pulling: set[asyncio.Task[None]] = set()


def from_async_iterable(iterable: AsyncIterable[T]) -> Observable[T]:
    """
    Emit the items of an async iterable while there is room downstream.

    Each subscription has a task that pulls an item only while the valve below has room. If there
    is no valve below, the task pulls as fast as the iterable yields, and gives other tasks a turn
    of the loop now and then. Nothing is emitted before the loop's next turn.

    Disposal cancels the current pull and closes the iterable: the task awaits its ``aclose``, if
    it has one. An error of ``aclose`` is logged as ``close_failed``.

    Args:
        iterable: The iterable. If it makes a new iterator each time, each subscription gets one. An
            async generator, or any other iterator, serves one subscription; each later one gets a
            ``ConfigError``, because a half-read iterator would look like a completed stream. To
            retry a generator, defer it:
            ``reactivex.defer(lambda _: from_async_iterable(read()))``.

    Raises:
        ConfigError: If *iterable* is not an async iterable.

    An error of the iterable, even a ``CancelledError`` of its own, ends the stream, and so does an
    error that the subscriber raises.

    Example:
        >>> from reactivex import operators as rx
        >>> from rxdispatch.streams import run
        >>> async def numbers() -> AsyncIterator[int]:
        ...     for n in range(3):
        ...         yield n
        >>> asyncio.run(run(from_async_iterable(numbers()).pipe(rx.to_list())))
        [0, 1, 2]
    """
    if isinstance(iterable, Observable) or not isinstance(iterable, AsyncIterable):
        raise ConfigError("iterable must be an async iterable", iterable)

    def begin(
        iterator: Any, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None
    ) -> abc.DisposableBase:
        return _AsyncIterableSubscription(iterator, observer).begin(scheduler)

    return stream_of(iterable, aiter, "an async iterator", begin)


class _AsyncIterableSubscription(Generic[T]):
    """One subscription."""

    def __init__(self, iterator: AsyncIterator[T], observer: abc.ObserverBase[T]) -> None:
        self._iterator = iterator
        self._observer = observer
        self._started = self._disposed = False
        self._waiter: asyncio.Future[None] | None = None

    def begin(self, scheduler: abc.SchedulerBase | None) -> abc.DisposableBase:
        self._loop = asyncio.get_running_loop()
        self._below = bound_by(valve_of(scheduler))
        self._link = None if self._below is None else self._below.listen(self._on_room)
        self._task = self._loop.create_task(self._run())
        _pulling.add(self._task)
        self._task.add_done_callback(_pulling.discard)
        return Disposable(self._dispose)

    def _on_room(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def _dispose(self) -> None:
        if self._disposed:
            return
        self._disposed = True
        if self._link is not None:
            self._link.dispose()
        # A task that is cancelled before its first step never closes the iterator, and a
        # cancellation from inside on_next would hit ``aclose``: in both cases the task checks
        # ``_disposed`` itself.
        if self._started and asyncio.current_task(self._loop) is not self._task:
            self._task.cancel()

    async def _run(self) -> None:
        self._started = True
        error: BaseException | None = None
        try:
            if not self._disposed:
                await self._pull()
        except asyncio.CancelledError as cancelled:
            if self._task.cancelling():
                await self._close()
                raise
            error = cancelled
        except LEAVING as leaving:
            if not self._disposed:
                self._observer.on_error(leaving)  # type: ignore[arg-type]
            raise
        except GeneratorExit:
            # The task itself is being destroyed, and must not await anything any more.
            raise
        except BaseException as failed:
            error = failed
        if self._disposed:
            if error is not None:
                self._log(error)
            await self._close()
        elif error is None:
            self._observer.on_completed()
        else:
            self._observer.on_error(error)  # type: ignore[arg-type]

    async def _pull(self) -> None:
        iterator, observer, below = self._iterator, self._observer, self._below
        turn = TURN
        while True:
            while below is not None and below.room() <= 0:
                await self._room()
                turn = TURN
            try:
                item = await anext(iterator)
            except StopAsyncIteration:
                return
            if self._disposed:
                return
            try:
                observer.on_next(item)
            except BaseException:
                await self._close()
                raise
            # This frame must not keep the item alive while it awaits the next one: an item that
            # was dropped downstream, such as a claim, must be collected.
            del item
            if self._disposed:
                return
            turn -= 1
            if not turn:
                turn = TURN
                await asyncio.sleep(0)

    async def _room(self) -> None:
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    async def _close(self) -> None:
        aclose = getattr(self._iterator, "aclose", None)
        if aclose is None:
            return
        try:
            await aclose()
        except (*LEAVING, GeneratorExit):
            raise
        except asyncio.CancelledError as error:
            if self._task.cancelling():
                raise
            self._log(error)
        except BaseException as error:
            self._log(error)

    def _log(self, error: BaseException) -> None:
        log.warning("close_failed", source="from_async_iterable", failure=error)
