"""Dispatch by queues of the standard library."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from benchmarks.dispatch_ways.dispatch_way import CONTEXT, WORKERS, DispatchWay
from benchmarks.dispatch_ways.runs import Runs, decode, encode, payload
from benchmarks.dispatch_ways.timed_turn import TimedTurn

__all__ = ["LoopQueue", "PlainQueue", "ProcessQueue"]


class ProcessQueue(DispatchWay):
    """
    A ``multiprocessing.Queue``, filled before; its thread sends the tasks while workers take them.

    Args:
        size: The number of tasks that are put and taken as one list; with 1 there are no lists.
    """

    def __init__(self, size: int = 1) -> None:
        self._size = size

    def prepare(self) -> None:
        """Make the queue."""
        self._queue: Any = CONTEXT.Queue()

    def fill(self) -> None:
        """Put the payloads, and an end mark for each worker."""
        put, size = self._queue.put, self._size
        if size == 1:
            for number in range(self.count):
                put(encode(payload(number)))
        else:
            for at in range(0, self.count, size):
                put([encode(payload(n)) for n in range(at, min(self.count, at + size))])
        for _ in range(WORKERS):
            put(None)

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Take tasks until the end mark."""
        get, did = self._queue.get, runs.did
        with turn:
            if self._size == 1:
                while (taken := get()) is not None:
                    did(decode(taken))
            else:
                while (chunk := get()) is not None:
                    for taken in chunk:
                        did(decode(taken))

    def close(self) -> None:
        """Close the queue without waiting for items that no worker will take."""
        self._queue.cancel_join_thread()
        self._queue.close()


class PlainQueue(DispatchWay):
    """A ``multiprocessing.SimpleQueue``; its pipe holds few tasks, so it is fed during the work."""

    def prepare(self) -> None:
        """Make the queue."""
        self._queue: Any = CONTEXT.SimpleQueue()

    def feed(self) -> None:
        """Put the payloads, and an end mark for each worker."""
        put = self._queue.put
        for number in range(self.count):
            put(encode(payload(number)))
        for _ in range(WORKERS):
            put(None)

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Take tasks until the end mark."""
        get, did = self._queue.get, runs.did
        with turn:
            while (taken := get()) is not None:
                did(decode(taken))

    def close(self) -> None:
        """Close the pipe."""
        self._queue.close()


class LoopQueue(DispatchWay):
    """An ``asyncio.Queue`` with consumers in the process that fills it."""

    workers: ClassVar[int] = 0

    def fill(self) -> None:
        """Put the payloads, and an end mark for each consumer."""
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        for number in range(self.count):
            self._queue.put_nowait(encode(payload(number)))
        for _ in range(WORKERS):
            self._queue.put_nowait(None)

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Run the consumers."""
        asyncio.run(self._consume(turn, runs))

    async def _consume(self, turn: TimedTurn, runs: Runs) -> None:
        get, did = self._queue.get, runs.did

        async def consumer() -> None:
            while (taken := await get()) is not None:
                did(decode(taken))

        with turn:
            await asyncio.gather(*(consumer() for _ in range(WORKERS)))
