"""``run``: subscribes to a stream and waits for its end."""

from __future__ import annotations

import asyncio
import threading
from typing import Generic, TypeVar

from reactivex import Observable
from reactivex.disposable import SingleAssignmentDisposable

from rxdispatch.clock import LoopScheduler
from rxdispatch.valve import Gate

__all__ = ["run"]

T = TypeVar("T")


async def run(source: Observable[T]) -> T | None:
    """
    Subscribe to *source*, wait until it ends, and return its last item.

    A cancellation disposes the subscription. A ``KillSwitch`` in the stream can end it too.

    Args:
        source: The stream.

    Returns:
        The last item, or None if there was none.

    Raises:
        Exception: The error that ended the stream.

    Example:
        >>> import reactivex
        >>> asyncio.run(run(reactivex.of(1, 2, 3)))
        3
    """
    waiter = _Waiter[T](asyncio.get_running_loop())
    gate = Gate(None, None, fail=waiter.abort)
    try:
        waiter.subscription.disposable = source.subscribe(
            waiter.on_next,
            waiter.fail,
            waiter.on_completed,
            scheduler=LoopScheduler(waiter.loop, valve=gate),
        )
        await waiter.ended
    finally:
        waiter.subscription.dispose()
        gate.dispose()
    error = waiter.error
    if error is not None:
        try:
            raise error
        finally:
            # The traceback refers to this frame, so the frame must not refer to the error.
            del error, waiter
    return waiter.last


class _Waiter(Generic[T]):
    """The observer of ``run``: the last item and the end of the stream."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.ended: asyncio.Future[None] = loop.create_future()
        self.subscription = SingleAssignmentDisposable()
        self.last: T | None = None
        self.error: BaseException | None = None
        self._thread = threading.get_ident()

    def on_next(self, item: T) -> None:
        self.last = item

    def abort(self, error: BaseException) -> None:
        self.subscription.dispose()
        self.fail(error)

    def fail(self, error: BaseException) -> None:
        if self.error is None and not self.ended.done():
            self.error = error
        self.on_completed()

    def on_completed(self) -> None:
        # RxPY's thread-based schedulers end a stream in their own threads.
        if threading.get_ident() == self._thread:
            self._end()
        else:
            self.loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        if not self.ended.done():
            self.ended.set_result(None)
