"""``SpillingIngress``: an ``Ingress`` whose surplus items wait on disk."""

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
from rxdispatch.boards.task_codec import NewTask, TaskCodec
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
    An :class:`Ingress` that writes items to a file when they do not fit in memory.

    While there is a place in memory and no item waits on disk, ``put`` is as fast as in an
    ``Ingress``. Otherwise it writes the item, and returns when the item is on disk. Items on disk
    are loaded into memory, in order, as places become free; until all are loaded, later items queue
    up behind them. When only a few remain on disk, ``put`` waits for them instead of writing more.

    A written item survives a kill or a power cut: it is removed from the file only after
    ``on_next`` of the subscriber has returned. If the process ends before that, the item is emitted
    again when the file is next opened. So an item may be emitted twice. **Items that were never on
    disk are lost** with the process; so are items that operators downstream hold after ``on_next``.
    If nothing may be lost, use a board or an ``Outbox``.

    Items must be valid payloads of a task. Items from the disk are plain values, and are emitted
    without the ``contextvars`` of their producer.

    ``offer`` and ``offer_threadsafe`` never write: while an item waits on disk, or memory is full,
    they return False. ``wait_empty`` and the completion after ``close`` wait for the items on disk
    too.

    Use it with ``async with``. Leaving the block closes the ingress: the stream completes after the
    items in memory, and those on disk stay for the next process that opens the file.

    Args:
        path: A SQLite file for this ingress only, on a local disk; one process at a time.
        size: How many items may wait in memory, at least 1.
        max_items: How many items may wait on disk.
        admit: As for :class:`Ingress`.

    Raises:
        ConfigError: If an argument breaks its rule; on entry if another process uses the file, or
            it is not a file of a spilling ingress.

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
        # This class checks the bound: the file also holds items that are in memory already.
        self._file = OutboxFile(self._path, Limits(sys.maxsize, None, None, False), "spill file")
        self._codec = TaskCodec[Any]()
        self._queue = self._line = _SpillQueue()
        # How many items are on disk or on their way there, and not in memory.
        self._behind = 0
        # The numbers of the last item loaded into memory, and of the last removed from the file.
        self._loaded = self._erased = 0
        self._pending: list[tuple[NewTask, asyncio.Future[None]]] = []
        self._work = asyncio.Event()
        self._moved = asyncio.Event()
        self._working: asyncio.Task[None] | None = None
        self._state = "new"
        self._failed = 0

    # ------------------------------------------------ lifetime

    async def __aenter__(self) -> Self:
        """Open the file; its items come first."""
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
        """Close the ingress, finish writing, and close the file."""
        self._state = "closed"
        self.close()
        self._work.set()
        assert self._working is not None
        try:
            await asyncio.wait([self._working])
        finally:
            self._working.cancel()
            self._behind = 0
            # If this call was cancelled, the puts that still wait must fail.
            for _, done in self._pending:
                _fail(done, StoreUnavailableError("put", maybe_executed=True, state="closed"))
            self._pump()
            await self._file.close()

    # ------------------------------------------------ producers

    async def put(self, item: T) -> None:
        """
        Put *item* in, or write it to the disk if it does not fit.

        If this is cancelled during the write, the item may be written or not.

        Raises:
            BufferOverflowError: If *max_items* wait on disk.
            CodecError: If it does not fit in memory and cannot be written.
            ConfigError: If the ingress is not open.
            StoreUnavailableError: If the disk write fails.
            TaskRejectedError: If the ingress is closed, or *admit* refuses the item.
        """
        self._bind()
        self._check_admitted(item)
        while not self._take_in(item):
            if not self._behind or self._behind > self._free:
                await self._spill(item)
                return
            # All items on disk are about to be loaded. If this item were written too, there would
            # always be an item on disk to queue up behind, and writing would never stop.
            self._moved.clear()
            await self._moved.wait()
        self._pump()

    def close(self) -> None:
        """
        Accept no more items; the stream completes after those in memory and on disk.

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
            # With items behind, the next load also removes those that were handed out.
            self._work.set()

    # ------------------------------------------------ the disk

    def _loadable(self) -> int:
        """Return how many to load now; a few are worth a read only if they are the last."""
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
            # A put that was cancelled before its turn writes nothing.
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
        # There may be fewer rows than asked for: items that are being written are not there yet.
        self._behind -= len(rows)
        if self._loadable() and rows:
            self._work.set()
        self._changed()

    def _changed(self) -> None:
        # Needed even if nothing was loaded: the stream, or ``wait_empty``, may end here.
        self._pump()
        self._moved.set()


class _SpillQueue(deque[Any]):
    """A FIFO queue that knows the file's number of the last item that it has handed out."""

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
