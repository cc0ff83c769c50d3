"""
``RebuildingProcessPool``: a process pool that is replaced when it breaks.

When a process of a pool dies, the executor fails every call in it and takes no more. Nothing says
which call killed the process. So all of them become *suspects*: once no call is in flight, each
suspect runs alone in a new pool, and calls that come meanwhile wait. A call that breaks the pool
alone is to blame.

Invariants: while a suspect runs, nothing else does. The pool that broke is replaced once, by the
first suspect. A call is blamed only if it began: if a process cannot even start, the pool is gone,
and no item is at fault.

All users of one executor on one loop share its replacement. Otherwise two suspects would run
"alone" beside each other.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import suppress
from typing import Any, ClassVar, Final
from weakref import WeakKeyDictionary

from rxdispatch.log import get_logger
from rxdispatch.operators._call import Call, ExecutorGoneError, GivenUp, answer
from rxdispatch.operators._pickled_call import pack_call, run_packed_call, unpack_answer
from rxdispatch.operators._start_times import StartTimes

__all__ = ["HandlerCrashedError", "RebuildingProcessPool"]

log = get_logger(__name__)

_Shared = WeakKeyDictionary[
    ProcessPoolExecutor, dict[asyncio.AbstractEventLoop, "RebuildingProcessPool"]
]

_TRIES: Final = 2
"""How many times a call that never begins is tried alone before the pool counts as gone."""


class HandlerCrashedError(Exception):
    """A call broke its process pool although nothing else ran in it."""


class RebuildingProcessPool:
    """
    Runs calls in the processes of a pool or of its replacement; made by :meth:`shared`.

    The pool is passed with each call, because a reference here would keep it alive.
    """

    _all: ClassVar[_Shared] = WeakKeyDictionary()

    def __init__(self) -> None:
        self._replacement: ProcessPoolExecutor | None = None
        self._starts: StartTimes | None = None
        self._users = self._suspects = self._in_flight = 0
        self._alone = asyncio.Lock()
        self._waiting: list[asyncio.Future[None]] = []

    @classmethod
    def shared(cls, given: ProcessPoolExecutor) -> RebuildingProcessPool:
        """Return the pool for *given* on this loop; the caller must :meth:`release` it."""
        loops = cls._all.setdefault(given, {})
        loop = asyncio.get_running_loop()
        found = loops.get(loop)
        if found is None:
            found = loops[loop] = cls()
        found._users += 1
        return found

    def release(self, given: ProcessPoolExecutor) -> None:
        """Release this pool; the last user closes the replacement, whose running calls go on."""
        self._users -= 1
        if self._users:
            return
        loops = self._all.get(given, {})
        for loop in [loop for loop, found in loops.items() if found is self]:
            del loops[loop]
        if self._replacement is not None:
            _close(self._replacement)
            self._replacement = None
        if self._starts is not None:
            self._starts.close()
            self._starts = None

    async def run(
        self, given: ProcessPoolExecutor, call: Call, limit: float | None, given_up: GivenUp | None
    ) -> Any:
        """
        Return the result of *call*, run in *given* or its replacement.

        Raises:
            HandlerCrashedError: If it killed its process.
            ItemTimeoutError: If it ran longer than *limit* seconds.
            ExecutorGoneError: If the pool can no longer run anything.
        """
        await self._until(lambda: not self._suspects)
        executor = self._replacement or given
        try:
            return await self._once(executor, call, limit, given_up)
        except BrokenExecutor:
            return await self._again(executor, call, limit, given_up)

    async def _again(
        self,
        broken: ProcessPoolExecutor,
        call: Call,
        limit: float | None,
        given_up: GivenUp | None,
    ) -> Any:
        self._suspects += 1
        try:
            async with self._alone:
                # The other calls in the broken pool fail like this one.
                await self._until(lambda: not self._in_flight)
                if self._replacement is None or self._replacement is broken:
                    self._replace(broken)
                cause: Exception = RuntimeError("no process began")
                for _ in range(_TRIES):
                    alone = self._replacement
                    assert alone is not None
                    try:
                        return await self._once(alone, call, limit, given_up)
                    except BrokenExecutor as error:
                        self._replace(alone)
                        if call.began is not None:
                            rule = "the handler must not end its process"
                            raise HandlerCrashedError(rule) from error
                        cause = error
                raise ExecutorGoneError(cause)
        finally:
            self._suspects -= 1
            self._changed()

    def _replace(self, broken: ProcessPoolExecutor) -> None:
        try:
            self._replacement = _like(broken)
        except Exception as error:
            raise ExecutorGoneError(error) from error
        log.warning("process_pool_rebuilt")

    async def _once(
        self,
        executor: ProcessPoolExecutor,
        call: Call,
        limit: float | None,
        given_up: GivenUp | None,
    ) -> Any:
        data = pack_call(call.fn, call.item)
        starts = self._starts = self._starts or StartTimes()
        key = starts.new_key()
        call.watch(lambda: starts.age(key))
        self._in_flight += 1
        try:
            try:
                future = executor.submit(run_packed_call, data, key)
            except BrokenExecutor:
                raise
            except Exception as error:
                raise ExecutorGoneError(error) from error
            future.add_done_callback(lambda _: starts.release(key))
            try:
                return unpack_answer(await answer(future, call, limit, given_up))
            except BrokenExecutor:
                call.age()
                raise
        finally:
            self._in_flight -= 1
            self._changed()

    # -- waiting ---------------------------------------------------------------------------------

    async def _until(self, true: Callable[[], bool]) -> None:
        while not true():
            changed = asyncio.get_running_loop().create_future()
            self._waiting.append(changed)
            await changed

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for changed in waiting:
            if not changed.done():
                changed.set_result(None)


def _like(pool: ProcessPoolExecutor) -> ProcessPoolExecutor:
    """Return a pool with the options of *pool*, which the standard library does not make public."""
    options: Any = pool
    _end(pool)
    return ProcessPoolExecutor(
        options._max_workers,
        mp_context=options._mp_context,
        initializer=options._initializer,
        initargs=options._initargs,
        max_tasks_per_child=options._max_tasks_per_child,
    )


def _close(pool: ProcessPoolExecutor) -> None:
    """Close *pool* without waiting for the calls that run in it."""
    given: Any = pool
    if given._broken:
        _end(pool)
    pool.shutdown(wait=False, cancel_futures=True)


def _end(broken: Any) -> None:
    """
    Kill the remaining processes of a pool that broke.

    The pool's own thread has asked them to end and waits for them. From Python 3.12 on it holds
    the lock that ``shutdown`` takes: a process that ignores SIGTERM would block the loop.
    """
    processes: dict[int, Any] = broken._processes or {}
    for process in tuple(processes.values()):
        with suppress(ValueError):  # it was closed meanwhile
            process.kill()
