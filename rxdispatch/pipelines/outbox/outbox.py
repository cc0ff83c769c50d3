"""``Outbox``: a queue on disk whose events stay until the receiver has them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from uuid_utils import uuid7

from rxdispatch.backoff import Backoff
from rxdispatch.boards.task_codec import NewTask, TaskCodec
from rxdispatch.callables import check_function
from rxdispatch.checks import integer
from rxdispatch.error_text import describe
from rxdispatch.errors import BufferOverflowError, ConfigError, StoreUnavailableError
from rxdispatch.home import Home
from rxdispatch.log import get_logger
from rxdispatch.overflow import Drops, checked_size
from rxdispatch.pipelines.outbox.events import OutboxEvent, OutboxStats
from rxdispatch.pipelines.outbox.file import Limits, OutboxFile
from rxdispatch.seconds import seconds
from rxdispatch.task import Task

__all__ = ["Outbox"]

log = get_logger(__name__)

_GROUP = 1000


class Outbox:
    """
    A queue on disk between this process and a receiver that may be unavailable.

    ``put`` returns when the event is on disk. The coroutine function *send* gets the waiting events
    in order, at least once: an event is removed only after *send* has returned. If *send* raises,
    for example because a reply was lost, it gets the same events again after a wait. After a kill
    or a power cut, it gets them when the file is opened again. The receiver drops repetitions by
    id, see :class:`Dedupe`.

    Use it with ``async with``. Leaving the block cancels *send*; the next process that opens the
    file sends the remaining events.

    Args:
        path: A SQLite file for this outbox only, on a local disk; one process at a time.
        send: Called with a list of events, oldest first. It should raise only for errors that may
            pass: an event that it can never send holds up all events behind it.
        max_items: How many events may wait.
        max_bytes: How many bytes the waiting events may have together, encoded.
        max_age: Seconds after which an event is dropped unsent. A step of the host's clock, as at
            the boot of a device whose clock has no battery, does not count.
        overflow: What happens when the outbox is full: ``"error"`` raises ``BufferOverflowError``
            from ``put``; ``"drop_oldest"`` drops the oldest events, but never those that are being
            sent.
        batch: The most events that *send* gets at a time.
        backoff: The waits after failures; its ``attempts`` are ignored.

    Raises:
        ConfigError: If an argument breaks its rule; on entry if another process uses the file, or
            it is not an outbox.

    Example:
        >>> import tempfile
        >>> async def main() -> None:
        ...     async def send(events: list[OutboxEvent]) -> None:
        ...         print([event.event for event in events])
        ...
        ...     with tempfile.TemporaryDirectory() as folder:
        ...         async with Outbox(f"{folder}/outbox.sqlite3", send) as box:
        ...             await box.put({"temperature": 21.5})
        ...             await box.flush()
        >>> asyncio.run(main())
        [{'temperature': 21.5}]
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        send: Callable[[list[OutboxEvent]], Awaitable[object]],
        *,
        max_items: int = 100_000,
        max_bytes: int | None = None,
        max_age: float | timedelta | None = None,
        overflow: Literal["error", "drop_oldest"] = "error",
        batch: int = 100,
        backoff: Backoff = Backoff(first=0.5),
    ) -> None:
        check_function("send", send, "events")
        for name, value in (("max_items", max_items), ("max_bytes", max_bytes), ("batch", batch)):
            if value is not None:
                integer(name, value)
        if overflow not in {"error", "drop_oldest"}:
            raise ConfigError('overflow must be "error" or "drop_oldest"', overflow)
        if not isinstance(backoff, Backoff):
            raise ConfigError("backoff must be a Backoff", backoff)
        age = None if max_age is None else seconds("max_age", max_age, zero=False)
        self._max_items = max_items
        self._batch = checked_size(batch)
        self._send = send
        self._backoff = backoff
        limits = Limits(max_items, max_bytes, age, overflow == "drop_oldest")
        self._file = OutboxFile(Path(path), limits)
        self._codec = TaskCodec[Any]()
        self._drops = (Drops("outbox", "max_items"), Drops("outbox", "max_age"))
        self._pending: list[tuple[NewTask, asyncio.Future[int]]] = []
        self._writing: asyncio.Task[None] | None = None
        self._sending: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._changed = asyncio.Event()
        self._state = "new"
        self._home = Home("outbox")
        self._sent = self._failures = 0

    # -- lifetime ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Open the file and start to send the events in it."""
        if self._state != "new":
            raise ConfigError("outbox must be entered once", self._state)
        self._home.check()
        self._state = "opening"
        self._context = copy_context()
        await self._file.open()
        self._state = "open"
        self._sending = asyncio.get_running_loop().create_task(self._send_on())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop sending, finish writing, and close the file."""
        self._state = "closed"
        self._changed.set()
        assert self._sending is not None
        self._sending.cancel()
        try:
            await asyncio.wait([self._sending])
            if self._writing is not None:
                await asyncio.wait([self._writing])
        finally:
            for drops in self._drops:
                drops.report()
            await self._file.close()

    # -- use ---------------------------------------------------------------------------------

    async def put(self, event: Any, id: str | None = None) -> int:  # noqa: A002
        """
        Write an event to the disk; puts at the same time share a transaction.

        If this is cancelled, the event may be written or not.

        Args:
            event: Anything that can be the payload of a task.
            id: Its id, by which the receiver recognises a repetition; a UUID version 7 by default.
                If an event with this id waits already, nothing is written.

        Returns:
            Its number.

        Raises:
            BufferOverflowError: If there is no room and *overflow* is ``"error"``, or the event
                alone is larger than *max_bytes*.
            CodecError: If the event cannot be stored.
            ConfigError: If the outbox is not open, or *id* cannot be stored.
            StoreUnavailableError: If the disk write fails.
        """
        if self._state != "open":
            raise ConfigError("outbox must be open; use it with 'async with'", self._state)
        self._home.check()
        task = Task(event, id=str(uuid7()) if id is None else id)
        (entry,) = self._codec.encode_all([task])
        loop = asyncio.get_running_loop()
        done: asyncio.Future[int] = loop.create_future()
        self._pending.append((entry, done))
        if self._writing is None:
            # It outlives this call and serves others, so it must not run in this caller's context.
            self._writing = loop.create_task(self._write(), context=self._context.copy())
        return await done

    async def flush(self) -> None:
        """
        Wait until all events are sent.

        Raises:
            ConfigError: If the outbox is closed while events wait.
        """
        self._home.check()
        while self._pending or self._writing is not None or self._file.totals.count:
            if self._state != "open":
                raise ConfigError("outbox must be open; use it with 'async with'", self._state)
            self._changed.clear()
            await self._changed.wait()

    @property
    def stats(self) -> OutboxStats:
        """A snapshot of the outbox."""
        totals = self._file.totals
        dropped = totals.evicted + totals.expired
        return OutboxStats(
            totals.count, totals.bytes, self._sent, dropped, self._failures, self._file.age()
        )

    # -- both ends ---------------------------------------------------------------------------

    async def _write(self) -> None:
        try:
            while self._pending:
                group, self._pending = self._pending[:_GROUP], self._pending[_GROUP:]
                # A put that was cancelled before its turn writes nothing.
                group = [(entry, done) for entry, done in group if not done.done()]
                entries = [entry for entry, _ in group]
                answers: list[int | Exception | None]
                try:
                    answers = [*await self._file.in_thread(lambda: self._file.add(entries))]  # noqa: B023
                except Exception as error:
                    answers = [_unwritten(error) for _ in group]
                for (_, done), answer in zip(group, answers, strict=True):
                    if done.done():
                        continue
                    if answer is None:
                        done.set_exception(BufferOverflowError(self._max_items))
                    elif isinstance(answer, Exception):
                        done.set_exception(answer)
                    else:
                        done.set_result(answer)
                self._more.set()
                self._tell_drops()
        finally:
            self._writing = None
            self._changed.set()

    async def _send_on(self) -> None:
        me = asyncio.current_task()
        assert me is not None
        failed = 0
        while True:
            self._more.clear()
            try:
                events = await self._file.in_thread(lambda: self._file.first(self._batch))
                self._tell_drops()
                if events:
                    await self._send(events)
                    last = events[-1].seq
                    self._sent += await self._file.in_thread(lambda: self._file.sent(last))  # noqa: B023
            except (GeneratorExit, KeyboardInterrupt):
                raise
            except BaseException as error:
                # A CancelledError that *send* itself raised is a failure like any other.
                if me.cancelling():
                    raise
                failed += 1
                self._failures += 1
                if failed == 1:
                    log.warning("outbox_waits", failure=error)
                await asyncio.sleep(self._backoff.delay(failed))
                continue
            self._changed.set()
            if not events:
                await self._more.wait()
            elif failed:
                log.info("outbox_going_on", failures=failed)
                failed = 0

    def _tell_drops(self) -> None:
        totals = self._file.totals
        for drops, total in zip(self._drops, (totals.evicted, totals.expired), strict=True):
            if drops.total < total:
                while drops.total < total:
                    drops.count()
                drops.arm(asyncio.get_running_loop())


def _unwritten(error: Exception) -> StoreUnavailableError:
    failure = StoreUnavailableError("put", state=describe(error))
    failure.__cause__ = error
    return failure
