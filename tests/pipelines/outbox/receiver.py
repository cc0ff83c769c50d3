"""A receiver over TCP that drops connections, and a sender process for an outbox."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import rxdispatch as rxd
from tests.failures.handlers import note

__all__ = ["Receiver", "lines", "send_to"]


class Receiver:
    """
    Takes batches of events as lines of JSON, drops duplicates by id, and acknowledges.

    Args:
        rng: Decides when a connection is dropped, before a batch is taken or before it is
            acknowledged; None drops none.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        self.received: list[object] = []
        self.repeated = 0
        self.dropped = 0
        self._rng = rng
        self._done = rxd.Dedupe(1000)
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=1 << 22)
        self.port: int = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _cut(self) -> bool:
        if self._rng is None or self._rng.random() > 0.15:
            return False
        self.dropped += 1
        return True

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while (line := await reader.readline()).endswith(b"\n"):
                if self._cut():
                    return
                for name, event in json.loads(line):
                    if name in self._done:
                        self.repeated += 1
                    else:
                        self.received.append(event)
                        self._done.add(name)
                if self._cut():
                    return
                writer.write(b"ok\n")
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)


async def send_to(port: int, events: list[rxd.OutboxEvent]) -> None:
    """Send a batch over a new connection, and wait for its acknowledgement."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(json.dumps([(e.id, e.event) for e in events]).encode() + b"\n")
        await writer.drain()
        if await reader.readline() != b"ok\n":
            raise ConnectionError("not acknowledged")
    finally:
        writer.transport.abort()


def lines(path: str) -> int:
    """Return how many lines a file has, 0 if it is missing."""
    return Path(path).read_text().count("\n") if Path(path).exists() else 0


async def main() -> None:
    """Put numbers, and record which are on disk, until killed: ``path port acknowledged``."""
    path, port, acknowledged = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    backoff = rxd.Backoff(first=0.002, maximum=0.02)

    async def send(events: list[rxd.OutboxEvent]) -> None:
        await send_to(port, events)

    async with rxd.Outbox(path, send, batch=20, backoff=backoff) as box:
        number = 10 * lines(acknowledged)
        while True:
            await asyncio.gather(*(box.put(n, id=f"n{n}") for n in range(number, number + 10)))
            number += 10
            note(acknowledged, str(number))


if __name__ == "__main__":
    asyncio.run(main())
