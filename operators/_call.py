"""``Call``: one call of a plain function in an executor, and how long the function has run."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from rxdispatch.errors import ItemTimeoutError

__all__ = ["Call", "ExecutorGoneError", "GivenUp", "answer"]

GivenUp = Callable[["Call", "Future[Any]"], None]


class ExecutorGoneError(Exception):
    """
    An executor can no longer run anything, and no call is to blame.

    Args:
        error: The error of the executor.
    """

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class Call:
    """
    A call of ``fn(item)``; the object itself is the function that runs in the thread.

    Args:
        fn: The function.
        item: Its argument.
        clock: The time in seconds; called in the thread, too.

    Attributes:
        began: When the function began, on that clock; None before.
    """

    __slots__ = ("_look", "began", "clock", "fn", "item")

    def __init__(self, fn: Callable[[Any], Any], item: Any, clock: Callable[[], float]) -> None:
        self.fn = fn
        self.item = item
        self.clock = clock
        self.began: float | None = None
        self._look: Callable[[], float | None] | None = None

    def __call__(self) -> Any:
        """Call the function and record when it began."""
        self.began = self.clock()
        try:
            return self.fn(self.item)
        except StopIteration as error:
            # An asyncio future cannot hold it.
            raise RuntimeError("fn raised StopIteration") from error

    def watch(self, age: Callable[[], float | None]) -> None:
        """From now on, ask *age* how many seconds the function has run in another process."""
        self.began = None
        self._look = age

    def age(self) -> float | None:
        """Return how many seconds the function has run; None before it begins."""
        if self._look is not None:
            age = self._look()
            self.began = None if age is None else self.clock() - age
            return age
        return None if self.began is None else self.clock() - self.began


async def answer(
    future: Future[Any], call: Call, limit: float | None, given_up: GivenUp | None
) -> Any:
    """
    Return the result of *future*, in which *call* runs.

    Args:
        future: From the executor.
        call: The call that runs in it.
        limit: Seconds that the function may run; waiting for a thread or process does not count.
        given_up: Called if the wait ends while the function still runs.

    Raises:
        ItemTimeoutError: If the function runs longer.
        ExecutorGoneError: If the executor dropped the call.
    """
    waiting = asyncio.wrap_future(future)
    watch = None if limit is None else _CallTimeout(call, limit, waiting)
    try:
        return await waiting
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        ours = task is None or task.cancelling() > 0
        if not future.cancel() and not future.done() and given_up is not None:
            given_up(call, future)
        if not ours and watch is not None and watch.expired:
            raise ItemTimeoutError(watch.limit, call.item) from error
        if not ours and future.cancelled():
            raise ExecutorGoneError(RuntimeError("the executor was shut down")) from error
        raise
    finally:
        if watch is not None:
            watch.timer.cancel()


class _CallTimeout:
    """Cancels *waiting* once the function has run for *limit* seconds."""

    __slots__ = ("_call", "_loop", "_waiting", "expired", "limit", "timer")

    def __init__(self, call: Call, limit: float, waiting: asyncio.Future[Any]) -> None:
        self._call = call
        self._waiting = waiting
        self._loop = asyncio.get_running_loop()
        self.limit = limit
        self.expired = False
        self.timer = self._loop.call_later(limit, self._look)

    def _look(self) -> None:
        age = self._call.age()
        # If the function begins after this check, the next check is too early and sets another.
        left = self.limit if age is None else self.limit - age
        if left > 0:
            self.timer = self._loop.call_later(left, self._look)
        else:
            self.expired = self._waiting.cancel()
