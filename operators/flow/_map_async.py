"""The ``map_async`` operator: a coroutine for each item, a bounded number at a time."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Hashable
from datetime import timedelta
from types import CoroutineType
from typing import Any, TypeVar

from reactivex import Observable

from rxdispatch.operators._on_error import OnError
from rxdispatch.operators._subscription import operator_of
from rxdispatch.operators.flow._bounded_map import BoundedMap
from rxdispatch.operators.flow._map_options import MapOptions
from rxdispatch.protocols import Limit

__all__ = ["map_async"]

T = TypeVar("T")
R = TypeVar("R")


def map_async(
    fn: Callable[[T], Awaitable[R]],
    *,
    max_concurrent: int | Limit = 16,
    ordered: bool = False,
    key: Callable[[T], Hashable] | None = None,
    timeout: float | timedelta | None = None,
    on_error: OnError[T, R] = "stop",
) -> Callable[[Observable[T]], Observable[R]]:
    """
    Await *fn* for each item, *max_concurrent* at a time, and emit what it returns.

    ::

        --1--2--3-----------|
        [ map_async(fetch)  ]
        -----b----a---c-----|

    Each item gets a task of its own and a copy of the ``contextvars`` it was pushed under;
    its result is emitted under them too. *fn* is called only when a slot is free. A source
    that can wait is asked for no more items than there are slots. If any other source pushes
    more, the items are kept and ``no_demand`` is logged once. While the consumer below has no
    room, items at work finish and are emitted, but no new ones begin.

    Completion waits for the items at work. An error of the source ends the stream at once, and
    so does disposal; both cancel the items at work. If one of these fails after the end, its
    error is logged as ``error_after_end``.

    Args:
        fn: Returns an awaitable for an item.
        max_concurrent: The number of slots; or a ``Limit``, such as ``AdaptiveLimit``, that
            adapts it to how long items take.
        ordered: Emit in the order of arrival; a result that waits for its turn keeps its slot.
        key: Items with equal keys are processed one after the other, in order of arrival.
        timeout: Seconds an item may take. After that only its own coroutine is cancelled, and
            its error is ``ItemTimeoutError`` with the item; its slot is free when the coroutine
            has ended. A ``TimeoutError`` that *fn* raises is passed on unchanged.
        on_error: What happens to an item that fails: ``"stop"`` ends the stream with the
            original error, ``"skip"`` logs it as ``item_skipped`` and goes on, and a callable
            gets the item and the error and returns what to emit instead. A ``CancelledError``
            that *fn* itself raises counts as its error.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> import asyncio, reactivex
        >>> from rxdispatch.streams import run
        >>> async def double(n: int) -> int:
        ...     await asyncio.sleep(0.001)
        ...     return 2 * n
        >>> async def main() -> int | None:
        ...     return await run(reactivex.of(1, 2, 3).pipe(map_async(double, ordered=True)))
        >>> asyncio.run(main())
        6
    """
    options = MapOptions.checked(
        "map_async",
        fn,
        max_concurrent=max_concurrent,
        ordered=ordered,
        key=key,
        timeout=timeout,
        on_error=on_error,
    )

    return operator_of(lambda observer, scheduler: _AsyncMap(options, observer, scheduler))


class _AsyncMap(BoundedMap):
    """A task for each item."""

    def start(self, item: Any) -> asyncio.Future[Any]:
        try:
            work: Any = self.fn(item)
            if work.__class__ is not CoroutineType:
                work = _coroutine(work)
            task: asyncio.Task[Any] = self.loop.create_task(work)
        except BaseException as error:
            return self.failed(error)
        task.add_done_callback(self.finished)
        return task

    def failed(self, error: BaseException) -> asyncio.Future[Any]:
        if isinstance(error, StopIteration):
            # A future cannot hold it; Python replaces it in coroutines too.
            cause, error = error, RuntimeError("fn raised StopIteration")
            error.__cause__ = cause
        future: asyncio.Future[Any] = self.loop.create_future()
        future.set_exception(error)
        future.add_done_callback(self.finished)
        return future

    def cut(self, future: asyncio.Future[Any]) -> bool:
        return future.cancel()

    def cancel(self, future: asyncio.Future[Any]) -> None:
        future.cancel()


def _coroutine(work: Any) -> Coroutine[Any, Any, Any]:
    # A generator is not a coroutine, although asyncio takes it for one in Python 3.11.
    given: Any = work
    if isinstance(work, Coroutine):
        return given  # type: ignore[no-any-return]
    if not inspect.isawaitable(work):
        raise TypeError(f"fn must return an awaitable, got {type(work).__name__}")

    async def wait() -> Any:
        return await work

    return wait()
