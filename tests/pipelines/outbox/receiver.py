"""A receiver over TCP that drops connections, and a sender process for an outbox."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from pathlib import Path

import rxdispatch as rxd
from tests.failures.handlers import note
from tests.stream_server import StreamServer

__all__ = ["Receiver", "lines", "send_to"]


class Receiver(StreamServer):
    """
    Takes batches of events as lines of JSON, drops duplicates by id, and acknowledges.

    Args:
        rng: Decides when a connection is dropped, before a batch is taken or before it is
            acknowledged; None drops none.
    """

    def __init__(self, rng: random.Random | None = None) -> None:
        super().__init__()
        self.received: list[object] = []
        self.repeated = 0
        self.dropped = 0
        self._rng = rng
        self._done = rxd.Dedupe(1000)

    def _cut(self) -> bool:
        if self._rng is None or self._rng.random() > 0.15:
            return False
        self.dropped += 1
        return True

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Take batches until the client hangs up, or the connection is dropped."""
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
