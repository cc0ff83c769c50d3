"""``FunctionPool``: runs plain functions in threads or processes that may hang or die."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import (
    BrokenExecutor,
    Executor,
    Future,
    ProcessPoolExecutor,
    ThreadPoolExecutor,
)
from contextvars import copy_context
from typing import Any

from rxdispatch.operators._call import Call, ExecutorGoneError, answer
from rxdispatch.operators._process_pool import HandlerCrashedError, RebuildingProcessPool

__all__ = ["FunctionPool", "HandlerCrashedError"]


class FunctionPool:
    """
    Calls plain functions in an executor.

    A call cannot be interrupted: when its caller gives up, the call goes on, and its slot counts
    as ``stuck`` until it returns. When a worker process dies, the executor fails all its calls.
    These calls run again one by one in a new pool, and a call that breaks the new pool is to
    blame. All users of one process pool share the new one.

    Args:
        executor: Where to run; a thread pool of its own when None.
        threads: The size of that thread pool.
        on_free: Called on the loop when a stuck call has returned.
        on_gone: Called on the loop with an error if the executor can no longer run anything: the
            user has shut it down, or its threads or processes cannot start. No item is to blame.
        label: How the names of its own threads begin.
    """

    def __init__(
        self,
        executor: Executor | None,
        threads: int,
        on_free: Callable[[], None] | None = None,
        on_gone: Callable[[Exception], None] | None = None,
        *,
        label: str = "rxdispatch",
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._given = executor
        self._executor = executor or ThreadPoolExecutor(threads, label)
        self._in_threads = isinstance(self._executor, ThreadPoolExecutor)
        self._processes: RebuildingProcessPool | None = None
        if isinstance(executor, ProcessPoolExecutor):
            self._processes = RebuildingProcessPool.shared(executor)
        self._on_free = on_free
        self._on_gone = on_gone
        self._closed = False
        # Calls that no caller awaits any more, with their items and what to call at their end.
        self._stuck: dict[Future[Any], tuple[Any, list[Callable[[], None]]]] = {}

    @property
    def in_processes(self) -> bool:
        """Whether calls need :meth:`run`, because their pool may have to be replaced."""
        return self._processes is not None

    @property
    def threads(self) -> ThreadPoolExecutor | None:
        """The thread pool that calls run in, if they run in threads."""
        return self._executor if isinstance(self._executor, ThreadPoolExecutor) else None

    @property
    def stuck(self) -> int:
        """How many calls still run although their callers have given up."""
        return len(self._stuck)

    def when_returned(self, item: Any, then: Callable[[], None]) -> None:
        """Call *then* once no call for *item* is running: at once if none is."""
        for stuck, waiting in self._stuck.values():
            if stuck is item:
                waiting.append(then)
                return
        then()

    async def call(self, fn: Callable[[Any], Any], item: Any, limit: float | None = None) -> Any:
        """
        Return ``fn(item)``.

        Args:
            fn: The function.
            item: Its argument.
            limit: Seconds that the function may run. Waiting for a thread or a process does not
                count if the executor is a thread or process pool of the standard library.

        Raises:
            HandlerCrashedError: If the call killed the process it ran in.
            ItemTimeoutError: If it took longer.
        """
        return await self.answer(self.call_of(fn, item), limit)

    async def answer(self, call: Call, limit: float | None = None) -> Any:
        """Return the result of *call*, as :meth:`call` does."""
        try:
            return await self.run(call, limit)
        except ExecutorGoneError as gone:
            if self._on_gone is not None and not self._closed:
                self._on_gone(gone.error)
            raise gone.error from None

    def call_of(self, fn: Callable[[Any], Any], item: Any) -> Call:
        """Return a :class:`Call` of *fn* with *item*, which can run once."""
        return Call(fn, item, self._loop.time)

    async def run(self, call: Call, limit: float | None = None) -> Any:
        """
        Return the result of *call*.

        Raises:
            ExecutorGoneError: If the executor can no longer run anything.
            Exception: As :meth:`call`.
        """
        if self._processes is not None:
            assert isinstance(self._executor, ProcessPoolExecutor)
            return await self._processes.run(self._executor, call, limit, self._given_up)
        try:
            return await answer(self.submit(call), call, limit, self._given_up)
        except BrokenExecutor as error:
            # The thread pool is broken, unless the function itself raised this.
            if call.began is None:
                raise ExecutorGoneError(error) from error
            raise

    def submit(self, call: Call) -> Future[Any]:
        """
        Submit *call* to the executor.

        Raises:
            ExecutorGoneError: If the executor accepts no more calls.
        """
        try:
            if self._in_threads:
                return self._executor.submit(copy_context().run, call)
            call.began = call.clock()
            return self._executor.submit(call.fn, call.item)
        except Exception as error:
            raise ExecutorGoneError(error) from error

    def close(self) -> None:
        """Release its own threads or processes; running calls run to their end."""
        if self._closed:
            return
        self._closed = True
        if self._processes is not None:
            assert isinstance(self._executor, ProcessPoolExecutor)
            self._processes.release(self._executor)
        elif self._executor is not self._given:
            self._executor.shutdown(wait=False, cancel_futures=True)

    def _given_up(self, call: Call, future: Future[Any]) -> None:
        self._stuck[future] = call.item, []
        future.add_done_callback(self._returned)

    def _returned(self, future: Future[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._freed, future)
        except RuntimeError:
            pass  # the loop is closed: the slot is not needed any more

    def _freed(self, future: Future[Any]) -> None:
        _, waiting = self._stuck.pop(future)
        for then in waiting:
            then()
        if self._on_free is not None:
            self._on_free()
