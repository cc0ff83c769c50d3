"""``GroupCommit``: writes the tasks of concurrent callers together."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, Final, NamedTuple

from rxdispatch.boards.task_codec import NewTask
from rxdispatch.errors import StoreUnavailableError

__all__ = ["GroupCommit"]

PATIENCE: Final = 0.02
"""Seconds that callers wait for a running write; then they start another one beside it."""

LEAST: Final = 64 * 1024
"""Bytes that a write may have, however slow the connection is."""

Write = Callable[[Sequence[NewTask]], Awaitable[list[bool]]]


class _Caller(NamedTuple):
    """A caller that waits for a write."""

    entries: Sequence[NewTask]
    answer: asyncio.Future[list[bool]]
    size: int


class GroupCommit:
    """
    Joins the writes of concurrent callers.

    If no write is running, a call writes at once. Calls that come during a write wait for its end
    and share the next one, as in a database. Otherwise a service that submits one task for each of
    many requests would call a script for each task.

    If a write gets no answer in time, it may have been too large for the connection. The next one
    has at most half the size, down to 64 KiB; each success doubles the limit again.

    Args:
        write: Writes entries, all or none; returns for each whether it is new.
        spawn: Runs a coroutine in a task that the board waits for when it is closed.
        most: The most entries in one write.
        most_bytes: The most bytes of ids and records in one write.

    Attributes:
        most_bytes: The limit that applies now, in bytes.
    """

    def __init__(
        self,
        write: Write,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        *,
        most: int,
        most_bytes: int,
    ) -> None:
        self._write = write
        self._spawn = spawn
        self._most = most
        self._limit = self.most_bytes = most_bytes
        self._writing = 0
        self._waiting: list[_Caller] = []
        self._timer: asyncio.TimerHandle | None = None

    async def add(self, entries: Sequence[NewTask]) -> list[bool]:
        """
        Write *entries*, which must fit one write.

        Raises:
            RxDispatchError: The error of the write; each caller of a group gets a copy.

        If the caller is cancelled before its write has begun, nothing is written.
        """
        if not self._writing:
            return await self._written(entries)
        loop = asyncio.get_running_loop()
        size = sum(entry.size for entry in entries)
        caller = _Caller(entries, loop.create_future(), size)
        self._waiting.append(caller)
        if self._timer is None:
            # If the server does not answer, a caller must not also wait for another caller's
            # timeout.
            self._timer = loop.call_later(PATIENCE, self._flush)
        return await caller.answer

    async def _written(self, entries: Sequence[NewTask]) -> list[bool]:
        self._writing += 1
        try:
            added = await self._write(entries)
        except StoreUnavailableError as error:
            if error.maybe_executed:
                size = min(self.most_bytes, sum(entry.size for entry in entries))
                self.most_bytes = min(self.most_bytes, max(LEAST, size // 2))
            raise
        else:
            if self.most_bytes < self._limit:
                self.most_bytes = min(self._limit, self.most_bytes * 2)
            return added
        finally:
            self._writing -= 1
            self._flush()

    def _flush(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        waiting, self._waiting = self._waiting, []
        group: list[_Caller] = []
        count = size = 0
        for caller in waiting:
            if caller.answer.done():
                continue  # The caller was cancelled.
            count += len(caller.entries)
            size += caller.size
            if group and (count > self._most or size > self.most_bytes):
                self._spawn(self._commit(group))
                group, count, size = [], len(caller.entries), caller.size
            group.append(caller)
        if group:
            self._spawn(self._commit(group))

    async def _commit(self, group: list[_Caller]) -> None:
        try:
            added = await self._written([entry for caller in group for entry in caller.entries])
        except Exception as error:
            for caller in group:
                if not caller.answer.done():
                    # Each caller gets a copy, as the board adds what that caller wrote before.
                    own = copy.copy(error)
                    own.__cause__ = error.__cause__
                    caller.answer.set_exception(own)
        else:
            start = 0
            for caller in group:
                end = start + len(caller.entries)
                if not caller.answer.done():
                    caller.answer.set_result(added[start:end])
                start = end
        finally:
            for caller in group:
                # This changes nothing unless this task was cancelled because the loop is closing.
                caller.answer.cancel()
