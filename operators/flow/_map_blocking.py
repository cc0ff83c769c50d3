"""The ``map_blocking`` operator: a thread or process for each item, so many at a time."""

from __future__ import annotations

import inspect
from asyncio import CancelledError
from collections.abc import Callable, Hashable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextvars import copy_context
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._bounded import BoundedMap
from rxdispatch.operators.flow._options import MapOptions, OnError
from rxdispatch.protocols import Limit

__all__ = ["map_blocking"]

T = TypeVar("T")
R = TypeVar("R")


def map_blocking(
    fn: Callable[[T], R],
    *,
    executor: Executor | None = None,
    max_concurrent: int | Limit = 16,
    ordered: bool = False,
    key: Callable[[T], Hashable] | None = None,
    timeout: float | timedelta | None = None,
    on_error: OnError[T, R] = "stop",
) -> Callable[[Observable[T]], Observable[R]]:
    """
    Call *fn* with each item in a thread or process, *max_concurrent* at a time.

    ::

        --1--2--3-----------|
        [ map_blocking(fn)  ]
        -----b----a---c-----|

    The same as ``map_async``, for plain functions. Each subscription has its own pool of
    *max_concurrent* threads, shut down when the stream ends; or the given *executor* is used,
    which stays open. In threads *fn* sees the ``contextvars`` its item was pushed under.

    A running function cannot be cancelled. After an error or disposal it runs on, and what
    becomes of it is nobody's concern.

    Args:
        fn: What to call with each item; for processes it must be importable.
        executor: Where to run; None for own threads.
        max_concurrent: The number of slots; or a ``Limit``, such as ``AdaptiveLimit``, that finds
            it by how long items take.
        ordered: Emit in the order of arrival; a result that waits for its turn keeps its slot.
        key: Items of equal keys are worked on one after the other, in order of arrival.
        timeout: Seconds an item may take, from when it is handed to the executor. Then its
            error is ``ItemTimeoutError`` at once, but its slot, and its key, stay taken until
            the function returns. Completion does not wait for that.
        on_error: As for ``map_async``.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> import asyncio, reactivex
        >>> from rxdispatch.streams import run
        >>> asyncio.run(run(reactivex.of("a", "bc").pipe(map_blocking(len, ordered=True))))
        2
    """
    options = MapOptions.checked(
        "map_blocking",
        fn,
        max_concurrent=max_concurrent,
        ordered=ordered,
        key=key,
        timeout=timeout,
        on_error=on_error,
    )
    if inspect.iscoroutinefunction(fn):
        raise ConfigError("fn must be a plain function; map_async takes coroutines", fn)
    if executor is not None and not isinstance(executor, Executor):
        raise ConfigError("executor must be a concurrent.futures.Executor or None", executor)

    def operator(source: Observable[T]) -> Observable[R]:
        def subscribe(
            observer: abc.ObserverBase[R], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return _BlockingMap(options, observer, executor).connect(source, scheduler)

        return Observable(subscribe)

    return operator


class _BlockingMap(BoundedMap):
    """A call in an executor for each item."""

    # The outcome comes from a thread, where the item's context is not at hand.
    carries_context = True

    def __init__(
        self, options: MapOptions, observer: abc.ObserverBase[Any], executor: Executor | None
    ) -> None:
        super().__init__(options, observer)
        self._pool = (
            ThreadPoolExecutor(options.limit, thread_name_prefix="map_blocking")
            if executor is None
            else None
        )
        self._executor: Executor = executor or self._pool  # type: ignore[assignment]
        # A context cannot be sent to a process.
        self._in_threads = isinstance(self._executor, ThreadPoolExecutor)

    def start(self, item: Any) -> Future[Any]:
        try:
            if self._in_threads:
                # A copy, because the item's own is needed here while the function runs on.
                future = self._executor.submit(copy_context().run, self.fn, item)
            else:
                future = self._executor.submit(self.fn, item)
        except (Exception, CancelledError) as error:
            return self.failed(error)
        future.add_done_callback(self._returned)
        return future

    def failed(self, error: BaseException) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(error)
        future.add_done_callback(self._returned)
        return future

    def cut(self, future: Future[Any]) -> bool:
        return future.cancel()

    def cancel(self, future: Future[Any]) -> None:
        future.cancel()

    def shut(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)

    def _returned(self, future: Future[Any]) -> None:
        """Hand *future* over to the loop; called in whichever thread it ended."""
        try:
            self.loop.call_soon_threadsafe(self.landed, future)
        except RuntimeError:
            # The loop is closed: the function has outlived it.
            if not self.loop.is_closed():
                raise
