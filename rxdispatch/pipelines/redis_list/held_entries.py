"""``HeldEntries``: the entries that a worker has taken from a list and not settled yet."""

from __future__ import annotations

import asyncio
import random
import weakref
from contextvars import copy_context
from typing import Any, Final, Literal

import attrs

from rxdispatch.errors import StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.pipelines.redis_list.scripts import BEAT, LEAVE, SETTLE
from rxdispatch.store.client import Client
from rxdispatch.store.scripts import Script

__all__ = ["HeldEntries", "ListItem", "ListWorker"]

log = get_logger(__name__)

_BATCH: Final = 256
_REMEMBER: Final = 86_400
"""Seconds for which the server remembers a dead worker, and the last batch of a worker."""


@attrs.frozen(kw_only=True)
class ListWorker:
    """One worker of a list: its keys, the end that it takes from, and its lease in seconds."""

    source: bytes
    processing: bytes
    name: bytes
    side: Literal[b"LEFT", b"RIGHT"]
    lease: float

    @property
    def held(self) -> bytes:
        """The key of the list of entries that this worker holds."""
        return self.processing + b":" + self.name

    @property
    def workers(self) -> bytes:
        """The key of the sorted set of all workers."""
        return self.processing + b"-workers"

    @property
    def last(self) -> bytes:
        """The key of the last batch that this worker settled."""
        return self.processing + b"-last:" + self.name


class ListItem:
    """
    An entry of a Redis list that this worker holds, made by :func:`from_redis_list`.

    Attributes:
        value: The entry.
    """

    __slots__ = ("__weakref__", "_answer", "_held", "_number", "value")

    def __init__(self, value: bytes, held: HeldEntries, number: int) -> None:
        self.value = value
        self._held = held
        self._number = number
        self._answer: asyncio.Future[bool] | None = None

    def __repr__(self) -> str:
        return f"<ListItem {len(self.value)} bytes>"

    async def done(self) -> bool:
        """
        Remove the entry for good; waits while the server is unavailable.

        Returns:
            False if this worker no longer held the entry: it is back in the list, or another worker
            has it, or had it. Later calls, including :meth:`give_back`, return the same answer.
        """
        return await self._settle(b"d")

    async def give_back(self) -> bool:
        """Put the entry back at the end that it was taken from; otherwise like :meth:`done`."""
        return await self._settle(b"b")

    async def _settle(self, kind: bytes) -> bool:
        if self._answer is None:
            self._answer = self._held.ask(self._number, kind)
        # Cancelling the wait does not undo the settlement.
        return await asyncio.shield(self._answer)


@attrs.frozen(eq=False)
class _Ask:
    """A request to settle an entry."""

    number: int
    kind: bytes
    answer: asyncio.Future[bool]


class HeldEntries:
    """The entries that one subscription holds: settles them in batches, and renews the lease."""

    def __init__(self, client: Client, worker: ListWorker) -> None:
        self._client = client
        self._worker = worker
        self._loop = asyncio.get_running_loop()
        self._context = copy_context()
        self.values: dict[int, bytes] = {}
        self.changed = asyncio.Event()
        self._next = self._batches = 0
        self._asked: set[int] = set()
        self._queue: list[_Ask] = []
        self._writing: asyncio.Task[None] | None = None
        self._beating: asyncio.Task[None] | None = None

    def add(self, value: bytes) -> ListItem:
        """Add an entry that is in our processing list."""
        self._next += 1
        self.values[self._next] = value
        item = ListItem(value, self, self._next)
        # An item that the user drops will never be settled: put its entry back.
        weakref.finalize(item, self._dropped, self._next).atexit = False
        return item

    def ask(self, number: int, kind: bytes) -> asyncio.Future[bool]:
        """Remove entry *number* (kind ``d``) or put it back (``b``); call once per entry."""
        answer: asyncio.Future[bool] = self._loop.create_future()
        if number not in self.values:
            answer.set_result(False)  # the worker has left, and the entry is back
            return answer
        self._asked.add(number)
        self._queue.append(_Ask(number, kind, answer))
        if self._writing is None:
            # The task outlives this call and serves others, so it must not run in their context.
            self._writing = self._loop.create_task(self._write(), context=self._context.copy())
        return answer

    def _dropped(self, number: int) -> None:
        def give_back() -> None:
            if number in self.values and number not in self._asked:
                self.ask(number, b"b")

        if number in self.values and not self._loop.is_closed():
            # The garbage collector may run on any thread.
            self._loop.call_soon_threadsafe(give_back)

    async def _write(self) -> None:
        try:
            while self._queue:
                batch, self._queue = self._queue[:_BATCH], self._queue[_BATCH:]
                await self._write_batch(batch)
        finally:
            self._writing = None

    async def _write_batch(self, batch: list[_Ask]) -> None:
        worker = self._worker
        self._batches += 1
        arguments: list[bytes | int] = [self._batches, _REMEMBER, worker.side]
        for ask in batch:
            arguments += (ask.kind, self.values[ask.number])
        keys = [worker.held, worker.last, worker.source]
        try:
            # A repetition has the same number: if the server has settled the batch already, it
            # repeats its answer.
            found: bytes = await self._run_until_available(
                "settle list entries", SETTLE, keys, arguments
            )
        except Exception as error:
            for ask in batch:
                if not ask.answer.done():
                    ask.answer.set_exception(error)
                    ask.answer.exception()  # mark it as retrieved: perhaps no caller waits
            log.warning("redis_list_settle_failed", key=_text(worker.source), error=str(error))
        else:
            for ask, held in zip(batch, found, strict=True):
                if not ask.answer.done():
                    ask.answer.set_result(held == ord("1"))
        for ask in batch:
            self.values.pop(ask.number, None)
            self._asked.discard(ask.number)
        self.changed.set()

    # -- life --------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Register the worker, and put back the entries of dead workers."""
        await self._beat()
        self._beating = self._loop.create_task(self._beats())

    async def empty(self) -> None:
        """Wait until no entry is held."""
        while self.values:
            self.changed.clear()
            await self.changed.wait()

    async def end(self, *, closed: bool) -> None:
        """
        Put back all held entries, and unregister the worker.

        Args:
            closed: Whether the server certainly moves no more entries for this worker.
        """
        if self._beating is not None:
            self._beating.cancel()
        if self._writing is not None:
            self._writing.cancel()
        self.values.clear()
        worker = self._worker
        keys = [worker.workers, worker.source, worker.held, worker.last]
        try:
            await self._client.run(
                "leave a list", LEAVE, keys, [worker.name, worker.side, int(closed)]
            )
        except Exception as error:
            # The worker's lease will run out. Then another worker puts its entries back.
            log.warning("redis_list_left_open", key=_text(worker.source), error=str(error))

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(self._worker.lease / 3 * random.uniform(0.8, 1.0))
            try:
                await self._beat()
            except Exception as error:
                log.warning(
                    "redis_list_beat_failed", key=_text(self._worker.source), error=str(error)
                )

    async def _beat(self) -> None:
        worker = self._worker
        await self._run_until_available(
            "hold list entries",
            BEAT,
            [worker.workers, worker.source],
            [
                *(worker.name, int(worker.lease * 1000), worker.processing + b":"),
                *(worker.side, _REMEMBER * 1000),
            ],
        )

    async def _run_until_available(
        self, operation: str, script: Script, keys: list[bytes], args: list[bytes | int]
    ) -> Any:
        logged = False
        while True:
            try:
                return await self._client.run(operation, script, keys, args)
            except StoreUnavailableError as error:
                if not logged:
                    log.warning(
                        "redis_list_waiting", key=_text(self._worker.source), error=str(error)
                    )
                    logged = True
                await asyncio.sleep(random.uniform(0.05, 0.3))


def _text(key: bytes) -> str:
    return key.decode(errors="replace")
