"""``SpillingIngress``: what does not fit in memory waits on disk."""

from __future__ import annotations

import asyncio
import os
import sys
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from uuid_utils import uuid7

from rxdispatch.backoff import Backoff
from rxdispatch.boards.codec import NewTask, TaskCodec
from rxdispatch.checks import integer
from rxdispatch.errors import BufferOverflowError, ConfigError, StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.pipelines.outbox.file import Limits, OutboxFile
from rxdispatch.streams._ingress import Ingress
from rxdispatch.task import Task

__all__ = ["SpillingIngress"]

T = TypeVar("T")

log = get_logger(__name__)

_GROUP = 1000
_AGAIN = Backoff(first=0.1, maximum=5.0)


class SpillingIngress(Ingress[T]):
    """
    An :class:`Ingress` that writes to a file what does not fit in memory.

    While there is a place in memory and nothing waits on disk, ``put`` is as quick as that of an
    ``Ingress``. Otherwise it writes the item, and returns when that is on the disk. What is there
    comes into memory, in order, as places get free; until all of it has come, later items go
    behind it. When there is little left, ``put`` waits for that rather than to write more.

    What ``put`` has written is not lost by a kill or a power cut: it is removed from the file
    only after ``on_next`` of the subscriber has returned, and comes from the file again when it is
    opened the next time. So an item may come twice. **Items that never were on disk are lost**
    with the process; so is what operators below hold, after ``on_next``. Where nothing may be
    lost use a board or an ``Outbox``.

    Items must be what a task's payload may be. From the disk they come as plain values, under
    the ``contextvars`` of nobody.

    ``offer`` and ``offer_threadsafe`` never write: while something waits on disk, and when there
    is no place in memory, they return False. ``wait_empty`` and the completion after ``close``
    wait for the items on disk too.

    Use it as an asynchronous context manager. On leaving it is closed; the stream completes after
    what is in memory, and what is on disk stays for who opens the file next.

    Args:
        path: A SQLite file of its own on a local disk, of one process at a time.
        size: How many items may wait in memory, at least 1.
        max_items: How many may wait on disk.
        admit: As for :class:`Ingress`.

    Raises:
        ConfigError: If an argument breaks its rule; on entry if another process has the file, or
            it is not one of these.

    Example:
        >>> import tempfile
        >>> from reactivex import operators as rx
        >>> from rxdispatch.streams import run
        >>> async def main() -> list[int] | None:
        ...     with tempfile.TemporaryDirectory() as folder:
        ...         async with SpillingIngress[int](f"{folder}/spill", size=2) as ingress:
        ...             for n in range(5):
        ...                 await ingress.put(n)
        ...             ingress.close()
        ...             return await run(ingress.pipe(rx.to_list()))
        >>> asyncio.run(main())
        [0, 1, 2, 3, 4]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        size: int = 100,
        max_items: int = 100_000,
        admit: Callable[[T], bool] | None = None,
    ) -> None:
        super().__init__(size, admit=admit)
        integer("max_items", max_items)
        self._path = Path(path)
        self._max_items = max_items
        # Bounded here, by what waits; the file also holds what is in memory already.
        self._file = OutboxFile(self._path, Limits(sys.maxsize, None, None, False), "spill file")
        self._codec = TaskCodec[Any]()
        self._queue = self._line = _SpillQueue()
        # On disk or on its way there, and not in memory.
        self._behind = 0
        # Numbers of the last one that came into memory, and of the last that was removed.
        self._loaded = self._erased = 0
        self._pending: list[tuple[NewTask, asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        self._moved = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._state = "new"
        self._failed = 0

    # ------------------------------------------------ lifetime

    async def __aenter__(self) -> Self:
        """Open the file; what it holds comes first."""
        if self._state != "new":
            raise ConfigError("ingress must be entered once", self._state)
        self._state = "opening"
        loop = self._bind()
        await self._file.open()
        self._state = "open"
        self._behind = self._file.totals.count
        self._work.set()
        self._working = loop.create_task(self._serve())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close, finish writing, and let go of the file."""
        self._state = "closed"
        self.close()
        self._work.set()
        assert self._working is not None
        try:
            await asyncio.wait([self._working])
        finally:
            self._working.cancel()
            self._behind = 0
            # Cancelled here, whoever still waits is told.
            for _, done in self._pending:
                _fail(done, StoreUnavailableError("put", maybe_executed=True, state="closed"))
            self._pump()
            await self._file.close()

    # ------------------------------------------------ producers

    async def put(self, item: T) -> None:
        """
        Put *item* in, or write it to the disk if it does not fit.

        Cancelled while it writes, the item may have been written or not.

        Raises:
            BufferOverflowError: If *max_items* wait on disk.
            CodecError: If it does not fit in memory and cannot be written.
            ConfigError: If the ingress is not open.
            StoreUnavailableError: If the disk does not take it.
            TaskRejectedError: If the ingress is closed, or if *admit* says no.
        """
        self._bind()
        self._check_admitted(item)
        while not self._take_in(item):
            if not self._behind or self._behind > self._free:
                await self._spill(item)
                return
            # All of it is about to come into memory. To write this one too would go on for ever
            # once it began, as then there is always something that it must go behind.
            self._moved.clear()
            await self._moved.wait()
        self._pump()

    def close(self) -> None:
        """
        Take nothing more in; the stream completes after what waits, in memory and on disk.

        Must be called on the loop's thread; may be called again.
        """
        super().close()
        self._moved.set()

    @property
    def spilled(self) -> int:
        """How many items wait on disk."""
        return self._behind

    def _check_admitted(self, item: T) -> None:
        if self._state in {"new", "opening"}:
            raise ConfigError("ingress must be open; use it with 'async with'", self._state)
        super()._check_admitted(item)

    def _take_in(self, item: T) -> bool:
        if not self._behind:
            return super()._take_in(item)
        if self._closed:
            self._check_admitted(item)
        return False

    async def _spill(self, item: T) -> None:
        if self._behind >= self._max_items:
            raise BufferOverflowError(self._max_items)
        (entry,) = self._codec.encode_all([Task(item, id=str(uuid7()))])
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._pending.append((entry, done))
        self._behind += 1
        self._work.set()
        await done

    # ------------------------------------------------ the stream

    def _free_place(self) -> None:
        super()._free_place()
        if self._loadable():
            self._work.set()

    def _exhausted(self) -> bool:
        return super()._exhausted() and not self._behind

    def _idle(self) -> bool:
        return super()._idle() and not self._behind

    def _pump(self) -> None:
        super()._pump()
        if not self._pumping and self._line.handed > self._erased and not self._behind:
            # Else it is done when more is read.
            self._work.set()

    # ------------------------------------------------ the disk

    def _loadable(self) -> int:
        """How many to read now: for a few it is worth it only if they are the last."""
        free = self._free
        return free if self._behind and free >= min(self._behind, (self._size + 1) // 2) else 0

    async def _serve(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            leaving = self._state == "closed"
            await self._write()
            try:
                await self._erase()
                if not leaving:
                    await self._load()
            except Exception as error:
                self._failed += 1
                if self._failed == 1:
                    log.warning("spill_waits", failure=error)
                if not leaving:
                    asyncio.get_running_loop().call_later(
                        _AGAIN.delay(self._failed), self._work.set
                    )
            else:
                if self._failed:
                    log.info("spill_going_on", failures=self._failed)
                    self._failed = 0
            if leaving:
                return

    async def _write(self) -> None:
        while self._pending:
            group, self._pending = self._pending[:_GROUP], self._pending[_GROUP:]
            # Whoever was cancelled before his turn has nothing written.
            live = [(entry, done) for entry, done in group if not done.done()]
            self._behind -= len(group) - len(live)
            entries = [entry for entry, _ in live]
            try:
                if entries:
                    await self._file.in_thread(lambda: self._file.add(entries))  # noqa: B023
            except BaseException as error:
                self._behind -= len(live)
                for _, done in live:
                    failure = StoreUnavailableError("put", state=f"{type(error).__name__}: {error}")
                    failure.__cause__ = error
                    _fail(done, failure)
                if not isinstance(error, Exception):
                    raise
            else:
                for _, done in live:
                    if not done.done():
                        done.set_result(None)
        self._changed()

    async def _erase(self) -> None:
        handed = self._line.handed
        if handed > self._erased:
            await self._file.in_thread(lambda: self._file.sent(handed))
            self._erased = handed

    async def _load(self) -> None:
        count = self._loadable()
        if not count:
            return
        rows = await self._file.in_thread(lambda: self._file.first(count, self._loaded))
        with self._lock:
            for row in rows:
                self._free -= 1
                self._line.append_row(row.seq, row.event)
                self._loaded = row.seq
        # Those that are written now are counted, but not on disk yet.
        self._behind -= len(rows)
        if self._loadable() and rows:
            self._work.set()
        self._changed()

    def _changed(self) -> None:
        # Also where nothing came: the stream may end here, or ``wait_empty``.
        self._pump()
        self._moved.set()


class _SpillQueue(deque[Any]):
    """First come, first served; knows the number on disk of the last one that was handed on."""

    handed = 0

    def append_row(self, seq: int, item: Any) -> None:
        self.append((item, copy_context(), seq))

    def popleft(self) -> tuple[Any, Context]:
        item, context, *seq = super().popleft()
        if seq:
            self.handed = seq[0]
        return item, context


def _fail(done: asyncio.Future[None], error: Exception) -> None:
    if not done.done():
        done.set_exception(error)
