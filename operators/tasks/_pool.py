"""``Pool``: plain functions in threads or processes, whatever becomes of those."""

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
from functools import partial
from typing import Any

from rxdispatch.errors import ItemTimeoutError
from rxdispatch.log import get_logger
from rxdispatch.operators.tasks._limited import limited

__all__ = ["HandlerCrashedError", "Pool"]

log = get_logger(__name__)


class HandlerCrashedError(Exception):
    """A call broke its process pool although nothing else ran in it."""


class Pool:
    """
    Calls plain functions in an executor.

    A call cannot be interrupted: when its caller gives up, it goes on, and its slot counts as
    ``stuck`` until it returns. When a worker process dies, the executor fails every call in it;
    those are run again one by one in a new one, and whichever breaks that alone is to blame.

    Args:
        executor: What to use; a thread pool of its own when None.
        threads: The size of that thread pool.
        on_free: Called on the loop when a stuck call has returned.
    """

    def __init__(
        self, executor: Executor | None, threads: int, on_free: Callable[[], None]
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._given = executor
        self._executor = executor or ThreadPoolExecutor(threads, "rxdispatch")
        self._threads = isinstance(self._executor, ThreadPoolExecutor)
        self._on_free = on_free
        self._one_by_one = asyncio.Lock()
        self._suspects = 0
        self._flying = 0
        self._calm = asyncio.Condition()
        # Calls nobody awaits any more, by the identity of their item, and who is to be told.
        self._stuck: dict[int, list[Callable[[], None]]] = {}

    @property
    def stuck(self) -> int:
        """How many calls go on although their callers have given up."""
        return len(self._stuck)

    def when_returned(self, item: Any, then: Callable[[], None]) -> None:
        """Call *then* once no call for *item* goes on, at once if there is none."""
        waiting = self._stuck.get(id(item))
        if waiting is None:
            then()
        else:
            waiting.append(then)

    async def call(self, fn: Callable[[Any], Any], item: Any, limit: float | None) -> Any:
        """
        Return ``fn(item)``.

        Args:
            fn: The function.
            item: Its argument.
            limit: Seconds it may take, from when it is handed to the executor.

        Raises:
            HandlerCrashedError: If the call killed the process it ran in.
            ItemTimeoutError: If it took longer.
        """
        if self._suspects:
            async with self._calm:
                await self._calm.wait_for(lambda: not self._suspects)
        executor = self._executor
        try:
            return await self._run(executor, fn, item, limit)
        except BrokenExecutor:
            if not isinstance(executor, ProcessPoolExecutor):
                raise
            return await self._again(executor, fn, item, limit)

    def close(self) -> None:
        """Let go of what is ours; calls that run go on to their end."""
        if self._executor is not self._given:
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def _again(
        self,
        broken: ProcessPoolExecutor,
        fn: Callable[[Any], Any],
        item: Any,
        limit: float | None,
    ) -> Any:
        self._suspects += 1
        try:
            async with self._one_by_one:
                # Whatever else was in the broken pool fails as this did; wait for it.
                async with self._calm:
                    await self._calm.wait_for(lambda: self._flying == 0)
                if self._executor is broken:
                    self._executor = _like(broken)
                    log.warning("process_pool_rebuilt")
                alone = self._executor
                try:
                    return await self._run(alone, fn, item, limit)
                except BrokenExecutor as error:
                    if isinstance(alone, ProcessPoolExecutor) and self._executor is alone:
                        self._executor = _like(alone)
                    raise HandlerCrashedError("the handler must not end its process") from error
        finally:
            self._suspects -= 1
            async with self._calm:
                self._calm.notify_all()

    async def _run(
        self, executor: Executor, fn: Callable[[Any], Any], item: Any, limit: float | None
    ) -> Any:
        self._flying += 1
        try:
            future: Future[Any]
            if self._threads:
                future = executor.submit(copy_context().run, fn, item)
            else:
                future = executor.submit(fn, item)
            waiting = asyncio.wrap_future(future)
            try:
                if limit is None:
                    return await waiting
                return await limited(waiting, getattr(item, "id", item), limit)
            except (asyncio.CancelledError, ItemTimeoutError):
                if not future.cancel() and not future.done():
                    self._stuck[id(item)] = []
                    future.add_done_callback(partial(self._returned, item))
                raise
        finally:
            self._flying -= 1
            if self._suspects:
                async with self._calm:
                    self._calm.notify_all()

    def _returned(self, item: Any, _: Future[Any]) -> None:
        try:
            self._loop.call_soon_threadsafe(self._freed, item)
        except RuntimeError:
            pass  # the loop is closed, and nobody waits for the slot

    def _freed(self, item: Any) -> None:
        for then in self._stuck.pop(id(item), ()):
            then()
        self._on_free()


def _like(pool: ProcessPoolExecutor) -> ProcessPoolExecutor:
    """Return a new pool made as *pool* was; the standard library has no public way to ask."""
    options: Any = pool
    pool.shutdown(wait=False, cancel_futures=True)
    return ProcessPoolExecutor(
        options._max_workers,
        mp_context=options._mp_context,
        initializer=options._initializer,
        initargs=options._initargs,
        max_tasks_per_child=options._max_tasks_per_child,
    )
