# pyright: basic
# The types of redis-py commands are partial.
"""Recorded messages of a fleet, and a process that publishes them as fast as it can."""

from __future__ import annotations

import asyncio
import pickle
import sys
import time
from asyncio.subprocess import Process
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import redis

import rxdispatch as rxd
from benchmarks.nodes.fleet import change, recorded, register
from benchmarks.support.roles import start_role
from rxdispatch.nodes.feed.sequencer import Sequencer
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.records import MessageReader
from rxdispatch.nodes.replica.followers import Followers
from rxdispatch.nodes.replica.replica import Replica

__all__ = ["NODES", "Flood", "followed", "published", "saved", "to_sequencer"]

NODES = 10_000
PIPELINE = 500


class SilentFollowers(Followers):
    """Followers of a replica that do nothing."""

    def __init__(self) -> None:
        """Depend on nothing."""

    def changed(self, previous: rxd.Node | None, node: rxd.Node | None) -> None:
        """Do nothing."""

    def replaced(self) -> None:
        """Do nothing."""

    def publish(self, change: rxd.NodeChange) -> None:
        """Do nothing."""

    def doubt(self, node: str) -> None:
        """Do nothing."""

    def lapse_at(self, at: float) -> None:
        """Do nothing."""


def to_sequencer(first: list[bytes]) -> Callable[[bytes], Any]:
    """Return the sequencer of a replica that has applied the messages of the registration."""
    replica = Replica({}, time.monotonic, SilentFollowers())
    sequencer = Sequencer(replica, Counters(), lambda: None)
    replica.epoch = MessageReader().message(first[0]).epoch
    sequencer.behind = False
    for data in first:
        sequencer.receive(data)
    return sequencer.receive


async def published(hub: rxd.Hub, messages: int) -> tuple[list[bytes], list[bytes]]:
    """Return the messages of a fleet's registration, and of that many heartbeats."""
    with recorded(hub) as first:
        await register(hub, NODES)
    with recorded(hub) as beats:
        for number in range(messages):
            await change(hub, [number % NODES], number // NODES + 1)
    return first, beats


def saved(beats: list[bytes], folder: str) -> Path:
    """Write the messages into a file for the other process."""
    file = Path(folder, "beats")
    file.write_bytes(pickle.dumps(beats))
    return file


class Flood:
    """A process that publishes all messages of a file at each request."""

    def __init__(self, process: Process) -> None:
        self._process = process

    @classmethod
    async def start(cls, path: str, file: Path, channel: bytes) -> Self:
        """Start it; *path* is the server's socket."""
        return cls(await start_role("benchmarks.nodes.flood", path, file, channel.decode()))

    def go(self) -> None:
        """Publish all messages once."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def followed(feed: rxd.Feed, flood: Flood, first: int, messages: int) -> float:
    """Set a feed back to where the recording began; return the messages a second it applies."""
    # The sync task would find that the registry is ahead of the messages published again.
    task = feed._replication._task
    assert task is not None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    replica = feed._replica
    replica.high = first - 1
    for name, node in replica.nodes.items():
        replica.nodes[name] = node._renewed(1, 0)
    last = first - 1 + messages
    begun, done = asyncio.Event(), asyncio.Event()

    def heard(change: rxd.NodeChange) -> None:
        if change.seq == first:
            begun.set()
        elif change.seq == last:
            done.set()

    before = feed.stats.messages
    with feed.changes.subscribe(heard):
        flood.go()
        await begun.wait()
        start = time.perf_counter()
        await done.wait()
        took = time.perf_counter() - start
    assert (feed.stats.messages - before, feed.stats.gaps) == (messages, 0)
    return messages / took


def main(path: str, file: str, channel: str) -> None:
    """Publish what is in the file at each line of the standard input."""
    server = redis.Redis(unix_socket_path=path)
    beats: list[bytes] = pickle.loads(Path(file).read_bytes())
    print("ready", flush=True)
    for _ in sys.stdin:
        for at in range(0, len(beats), PIPELINE):
            pipe = server.pipeline(transaction=False)
            for data in beats[at : at + PIPELINE]:
                pipe.publish(channel, data)
            pipe.execute()


if __name__ == "__main__":
    main(*sys.argv[1:])
