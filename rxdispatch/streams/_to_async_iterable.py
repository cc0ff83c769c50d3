"""``to_async_iterable``: an async iterator over the items of a stream."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator
from types import TracebackType
from typing import Generic, TypeVar

from reactivex import Observable

from rxdispatch.errors import ConfigError
from rxdispatch.operators._subscription import Upstream
from rxdispatch.overflow import checked_size

__all__ = ["Reader", "to_async_iterable"]

T = TypeVar("T")


def to_async_iterable(source: Observable[T], *, size: int = 64) -> Reader[T]:
    """
    Read *source* with ``async for``, at the pace of the reader.

    Up to *size* items wait for the reader; then the valve closes, and a source that can wait
    pauses. If a source that cannot wait pushes more items, they are kept, and ``no_demand`` is
    logged once.

    The iterator subscribes at the first read. It disposes the subscription when the stream has
    ended, on ``aclose``, at the end of ``async with``, and when nothing refers to the iterator any
    more: so you may simply leave ``async for item in to_async_iterable(source)`` early. It can be
    read once, by one reader at a time.

    Args:
        source: The stream.
        size: How many items may wait for the reader, at least 1.

    Raises:
        ConfigError: If an argument breaks its rule.

    An error of *source* is raised after the items before it have been read.

    Example:
        >>> import reactivex
        >>> async def main() -> list[int]:
        ...     return [n async for n in to_async_iterable(reactivex.of(1, 2, 3))]
        >>> asyncio.run(main())
        [1, 2, 3]
    """
    if not isinstance(source, Observable):
        raise ConfigError("source must be an Observable", source)
    return Reader(source, checked_size(size))


class Reader(AsyncIterator[T]):
    """The async iterator that :func:`to_async_iterable` returns."""

    # The stream refers to the inlet, but the inlet does not refer to this object. So this object is
    # collected as soon as the caller drops it, and its finalizer runs.
    def __init__(self, source: Observable[T], size: int) -> None:
        self._source = source
        self._size = size
        self._inlet: _Inlet[T] | None = None
        self._reading = self._closed = False

    def __aiter__(self) -> Reader[T]:
        return self

    async def __anext__(self) -> T:
        if self._reading:
            raise RuntimeError("one reader at a time must wait for the next item, got another one")
        if self._closed:
            raise StopAsyncIteration
        inlet = self._inlet
        if inlet is None:
            inlet = self._inlet = _Inlet(self._size)
            inlet.connect(self._source)
        self._reading = True
        try:
            while not inlet.items and not inlet.ended:
                await inlet.changed()
        finally:
            self._reading = False
        if inlet.items:
            return inlet.take()
        await self.aclose()
        error = inlet.error
        if error is None:
            raise StopAsyncIteration
        try:
            if isinstance(error, StopAsyncIteration):
                # Unchanged, it would end the reader's loop as if the stream had completed.
                raise RuntimeError("the stream failed with StopAsyncIteration") from error
            raise error
        finally:
            # The traceback refers to this frame, so the frame must not refer to the error.
            inlet.error = None
            del error

    async def aclose(self) -> None:
        """Dispose the subscription and drop waiting items; a waiting reader sees the end."""
        self._closed = True
        if self._inlet is not None:
            self._inlet.close()

    async def __aenter__(self) -> Reader[T]:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        if self._inlet is not None:
            self._inlet.abandon()


class _Inlet(Generic[T]):
    """The items that have not been read."""

    def __init__(self, size: int) -> None:
        self.items: deque[T] = deque()
        self.ended = False
        self.error: BaseException | None = None
        self._size = size
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        self._waiter: asyncio.Future[None] | None = None
        self._upstream: Upstream[T] = Upstream(
            "to_async_iterable", size, self._room, None, fail=self._abort
        )

    def connect(self, source: Observable[T]) -> None:
        self._upstream.connect(source, self._on_next, self._fail, self._end)

    def take(self) -> T:
        item = self.items.popleft()
        self._upstream.gate.opened()
        return item

    async def changed(self) -> None:
        """Wait for an item or the end."""
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        self._upstream.cancel()
        self.items.clear()
        self._end()

    def abandon(self) -> None:
        """Close; this may be called in any thread, as the reader may be collected in any."""
        if self._thread == threading.get_ident() or self._loop.is_closed():
            self.close()
        else:
            self._loop.call_soon_threadsafe(self.close)

    def _room(self) -> int:
        return self._size - len(self.items)

    def _on_next(self, item: T) -> None:
        if self.ended:
            return
        self.items.append(item)
        if not self._upstream.demand_checked and len(self.items) > self._size:
            self._upstream.check_demand()
        self._wake()

    def _abort(self, error: Exception) -> None:
        self._upstream.cancel()
        self._fail(error)

    def _fail(self, error: BaseException) -> None:
        if not self.ended:
            self.error = error
        self._end()

    def _end(self) -> None:
        self.ended = True
        self._upstream.gate.dispose()
        self._wake()

    def _wake(self) -> None:
        # RxPY's thread-based schedulers push in their own threads.
        if self._thread != threading.get_ident():
            self._loop.call_soon_threadsafe(self._wake_reader)
        else:
            self._wake_reader()

    def _wake_reader(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
