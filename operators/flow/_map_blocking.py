"""The ``map_blocking`` operator: a thread or process for each item, a bounded number at a time."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import CancelledError, Executor, Future
from concurrent.futures.thread import BrokenThreadPool
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxdispatch.callables import check_function, check_result, is_async
from rxdispatch.errors import ConfigError
from rxdispatch.operators._call import Call, ExecutorGoneError
from rxdispatch.operators._function_pool import FunctionPool
from rxdispatch.operators._on_error import OnError
from rxdispatch.operators._subscription import operator_of
from rxdispatch.operators.flow._bounded_map import BoundedMap
from rxdispatch.operators.flow._in_flight import InFlight
from rxdispatch.operators.flow._map_options import MapOptions
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
    *max_concurrent* threads, which is shut down when the stream ends. An *executor* of yours is
    used instead, and stays open. In threads *fn* sees the ``contextvars`` its item was pushed
    under.

    A process pool that breaks, because one of its processes dies, is rebuilt and its items run
    again one by one; an item that breaks it again fails with ``HandlerCrashedError``. An executor
    that can no longer run anything, for example because it was shut down, ends the stream with
    its error, whatever *on_error* is.

    A running function cannot be cancelled. After an error or disposal it runs to its end, and its
    result is ignored.

    Args:
        fn: What to call with each item; for processes it must be importable.
        executor: Where to run; a thread pool of its own when None.
        max_concurrent: The number of slots; or a ``Limit``, such as ``AdaptiveLimit``, that
            adapts it to how long items take.
        ordered: Emit in the order of arrival; a result that waits for its turn keeps its slot.
        key: Items with equal keys are processed one after the other, in order of arrival.
        timeout: Seconds an item may take, counted from the start of *fn*: waiting for a thread or
            process of *executor* does not count. After that it fails with ``ItemTimeoutError`` at
            once, but its slot and its key stay taken until the function returns. Completion does
            not wait for that.
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
    check_function("fn", fn, "item")
    if is_async(fn):
        raise ConfigError("fn must be a plain function; map_async takes coroutines", fn)
    if executor is not None and not isinstance(executor, Executor):
        raise ConfigError("executor must be a concurrent.futures.Executor or None", executor)

    return operator_of(
        lambda observer, scheduler: _BlockingMap(options, observer, scheduler, executor)
    )


class _BlockingMap(BoundedMap):
    """A call in an executor for each item."""

    # The outcome comes from a thread, where the context of the item is not set.
    carries_context = True

    def __init__(
        self,
        options: MapOptions,
        observer: abc.ObserverBase[Any],
        scheduler: abc.SchedulerBase | None,
        executor: Executor | None,
    ) -> None:
        super().__init__(options, observer, scheduler)
        self.fn = partial(_checked, options.fn)
        self._pool = FunctionPool(executor, options.limit, label="map_blocking")
        # Each slot has a thread of its own, so an item begins as soon as it has a slot. In an
        # executor that others use too, its time begins when the function begins.
        self._own = self._pool.threads if executor is None else None
        self._span = options.timeout
        self._watched: dict[Any, Call] | None = None
        if executor is not None and options.timeout is not None:
            self._timeout = None
            self._watched = {}

    def start(self, item: Any) -> Any:
        future: Any
        if self._own is not None:
            # A copy of the context, because the loop uses the item's own meanwhile.
            try:
                future = self._own.submit(copy_context().run, self.fn, item)
            except Exception as error:
                return self.failed(ExecutorGoneError(error))
            future.add_done_callback(self._returned)
            return future
        call = self._pool.call_of(self.fn, item)
        if self._pool.in_processes:
            # The task runs it again if its pool breaks; a process costs more than the task.
            future = self.loop.create_task(self._pool.run(call))
            future.add_done_callback(self.finished)
        else:
            try:
                future = self._pool.submit(call)
            except ExecutorGoneError as gone:
                return self.failed(gone)
            future.add_done_callback(self._returned)
        if self._watched is not None and self._span is not None:
            self._watched[future] = call
            self.loop.call_later(self._span, self._look, future)
        return future

    def failed(self, error: BaseException) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_exception(error)
        future.add_done_callback(self._returned)
        return future

    def cut(self, future: Any) -> bool:
        # The task of a process would end at once, while the process goes on.
        return not self._pool.in_processes and future.cancel()

    def cancel(self, future: Any) -> None:
        future.cancel()

    def shut(self) -> None:
        self._pool.close()

    def finished(self, future: Any) -> None:
        """Record that the work of *future* is over."""
        if self._watched is not None:
            self._watched.pop(future, None)
        super().finished(future)

    def _resolve_error(self, entry: InFlight, error: BaseException) -> None:
        # A broken executor is not the failure of this item; all others would fail too.
        if isinstance(error, ExecutorGoneError):
            self.fail(error.error)
        elif isinstance(error, BrokenThreadPool):
            self.fail(error)
        elif isinstance(error, CancelledError) and not entry.expired:
            self.fail(RuntimeError("the executor was shut down"))
        else:
            super()._resolve_error(entry, error)

    def _look(self, future: Any) -> None:
        """Cut short an item that has run too long in the user's executor."""
        entry = self.running.get(future)
        if self._watched is None or self._span is None or self.closed or entry is None:
            return
        age = self._watched[future].age()
        left = self._span if age is None else self._span - age
        if left > 0:
            self.loop.call_later(left, self._look, future)
        elif not future.done():
            entry.expired = True
            if not self.cut(future):
                self.loop.call_soon(self._time_out, entry)

    def _returned(self, future: Future[Any]) -> None:
        """Pass *future* to the loop; called in any thread."""
        try:
            self.loop.call_soon_threadsafe(self.finished, future)
        except RuntimeError:
            # The loop is closed: the function has outlived it.
            if not self.loop.is_closed():
                raise


def _checked(fn: Callable[[Any], Any], item: Any) -> Any:
    result = fn(item)
    check_result("fn", result)
    return result
