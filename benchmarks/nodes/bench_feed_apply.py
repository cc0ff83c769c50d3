# pyright: basic
# The types of redis-py commands are partial.
"""
How many messages a second does a feed apply?

10,000 nodes, 20,000 messages (or as many as the argument says) of one heartbeat with news each,
recorded as they were published. Keeps messages a second

- from the recorded bytes alone: pushed through a Subject to an observer that does nothing; to one
  that puts three fields and the decoded state into a dict, unchecked, which is the least that
  anybody must do; to the feed's sequencer and replica, with their gap checks;
- through Pub/Sub, from another process that publishes as fast as it can: redis-py's own PubSub
  into a Subject, and the feed.
"""

from __future__ import annotations

import asyncio
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import redis
from reactivex import Subject
from redis import asyncio as aioredis

import rxdispatch as rxd
from benchmarks.figures.record import Record
from benchmarks.nodes.fleet import change, note_server, recorded, register
from rxdispatch.nodes.feed.sequencer import Sequencer
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.records import MessageReader
from rxdispatch.nodes.replica.followers import Followers
from rxdispatch.nodes.replica.replica import Replica

NODES = 10_000
MESSAGES = int(sys.argv[1]) if sys.argv[1:] and sys.argv[1].isdecimal() else 20_000
ROUNDS = 3
PIPELINE = 500
DICT = "Subject to a dict, nothing checked"
SEQUENCER = "Subject to Sequencer and Replica"
PUBSUB = "redis-py PubSub to a Subject"
# Where in a message of one row the id begins, and in a record what does not change.
ID, SPEC = 48, 34


class Nobody(Followers):
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


async def published(hub: rxd.Hub) -> tuple[list[bytes], list[bytes]]:
    """Return the messages of a fleet's registration, and of its heartbeats."""
    with recorded(hub) as first:
        await register(hub, NODES)
    with recorded(hub) as beats:
        for number in range(MESSAGES):
            await change(hub, [number % NODES], number // NODES + 1)
    return first, beats


# -- from recorded bytes ---------------------------------------------------------------------


def to_nobody(_: list[bytes]) -> Callable[[bytes], Any]:
    """Return what does nothing with a message."""
    return lambda _: None


def to_dict(_: list[bytes]) -> Callable[[bytes], Any]:
    """Return what decodes the one row of a message by hand, unchecked, into a dict."""
    decode = msgspec.msgpack.Decoder(dict[str, Any]).decode
    number = int.from_bytes
    nodes: dict[str, tuple[int, int, dict[str, Any]]] = {}

    def apply(data: bytes) -> None:
        at = ID + number(data[ID - 6 : ID - 4])
        name = data[ID:at].decode()
        state = at + SPEC + number(data[at + 30 : at + 34])
        version, jobs = number(data[at + 2 : at + 10]), number(data[at + 22 : at + 26])
        nodes[name] = (version, jobs, decode(data[state:]))

    return apply


def to_sequencer(first: list[bytes]) -> Callable[[bytes], Any]:
    """Return the sequencer of a replica that knows the fleet."""
    replica = Replica({}, time.monotonic, Nobody())
    sequencer = Sequencer(replica, Counters(), lambda: None)
    replica.epoch = MessageReader().message(first[0]).epoch
    sequencer.behind = False
    for data in first:
        sequencer.receive(data)
    return sequencer.receive


def recorded_rates(record: Record, first: list[bytes], beats: list[bytes]) -> None:
    """Keep what comes of bytes that are at hand."""
    cases = {DICT: to_dict, "Subject to nobody": to_nobody, SEQUENCER: to_sequencer}
    rates: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(-1, ROUNDS):
        for name, make in cases.items():
            source: Subject[bytes] = Subject()
            source.subscribe(make(first))
            start = time.perf_counter()
            for data in beats:
                source.on_next(data)
            if number >= 0:
                rates[name].append(len(beats) / (time.perf_counter() - start))
    keep(record, "from recorded bytes", rates, DICT)


# -- through Pub/Sub -------------------------------------------------------------------------


def flood(path: str, file: str, channel: str) -> None:
    """Be the other process: publish what is in the file, at a line on stdin each time."""
    server = redis.Redis(unix_socket_path=path)
    beats: list[bytes] = pickle.loads(Path(file).read_bytes())
    print("ready", flush=True)
    for _ in sys.stdin:
        for at in range(0, len(beats), PIPELINE):
            pipe = server.pipeline(transaction=False)
            for data in beats[at : at + PIPELINE]:
                pipe.publish(channel, data)
            pipe.execute()


class Flood:
    """A process that publishes."""

    async def start(self, path: str, file: Path, channel: bytes) -> None:
        """Start it."""
        pipe = asyncio.subprocess.PIPE
        arguments = (sys.executable, __file__, "flood", path, str(file), channel.decode())
        self._process = await asyncio.create_subprocess_exec(*arguments, stdin=pipe, stdout=pipe)
        assert self._process.stdout is not None
        await self._process.stdout.readline()

    def go(self) -> None:
        """Let it publish all once."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")

    async def stop(self) -> None:
        """Let it end."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        await self._process.wait()


async def bare(path: str, channel: bytes, flooding: Flood) -> float:
    """Return the rate of redis-py's PubSub into a Subject."""
    async with aioredis.Redis(unix_socket_path=path) as server, server.pubsub() as pubsub:
        await pubsub.subscribe(channel)
        await pubsub.get_message(timeout=1.0)
        source: Subject[Any] = Subject()
        count = 0

        def heard(_: object) -> None:
            nonlocal count
            count += 1

        source.subscribe(heard)
        start = 0.0
        flooding.go()
        while count < MESSAGES:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0)
            if message is not None:
                start = start or time.perf_counter()
                source.on_next(message["data"])
        return MESSAGES / (time.perf_counter() - start)


async def followed(feed: rxd.Feed, flooding: Flood, first: int) -> float:
    """Return the rate of the feed, put back to where the recording began."""
    inner: Any = feed
    # The task would find that the registry is further than what is published again.
    inner._task.cancel()
    await asyncio.gather(inner._task, return_exceptions=True)
    replica = inner._replica
    replica.high = first - 1
    for name, node in replica.nodes.items():
        replica.nodes[name] = node._renewed(1, 0)
    last = first - 1 + MESSAGES
    begun, done = asyncio.Event(), asyncio.Event()

    def heard(change: rxd.NodeChange) -> None:
        if change.seq == first:
            begun.set()
        elif change.seq == last:
            done.set()

    before = feed.stats.messages
    with feed.changes.subscribe(heard):
        flooding.go()
        await begun.wait()
        start = time.perf_counter()
        await done.wait()
        took = time.perf_counter() - start
    assert (feed.stats.messages - before, feed.stats.gaps) == (MESSAGES, 0)
    return MESSAGES / took


def kept(beats: list[bytes], folder: str) -> Path:
    """Write the messages down for the other process."""
    file = Path(folder, "beats")
    file.write_bytes(pickle.dumps(beats))
    return file


async def through_pubsub(record: Record, hub: rxd.Hub, beats: list[bytes]) -> None:
    """Keep what comes of a flood."""
    path = str(hub.client.target.path)
    fleet: Any = hub._fleet
    channel: bytes = fleet.keys.changes
    first = MessageReader().message(beats[0]).first
    rates: dict[str, list[float]] = {PUBSUB: [], "feed": []}
    with tempfile.TemporaryDirectory() as folder:
        flooding = Flood()
        await flooding.start(path, kept(beats, folder), channel)
        for number in range(-1, ROUNDS):
            rate = await bare(path, channel, flooding)
            async with hub.feed() as feed:
                ours = await followed(feed, flooding, first)
            if number >= 0:
                rates[PUBSUB].append(rate)
                rates["feed"].append(ours)
        await flooding.stop()
    record.control("both heard every message, the feed without a gap", True)
    keep(record, "through Pub/Sub", rates, PUBSUB)


def keep(record: Record, group: str, rates: dict[str, list[float]], base: str) -> None:
    """Keep the medians."""
    for name, found in rates.items():
        bound = 45_000 if name == SEQUENCER else None
        record.add(
            name,
            statistics.median(found),
            "1/s",
            group=group,
            base=None if name == base else base,
            at_least=bound,
            judged="value",
        )


async def main() -> None:
    """Record, then measure."""
    with Record("bench_feed_apply", __doc__) as record:
        async with rxd.connect() as hub:
            await note_server(record, hub)
            record.note(nodes=NODES, messages=MESSAGES, rounds=ROUNDS)
            first, beats = await published(hub)
            record.control("every heartbeat was a message", len(beats) == MESSAGES)
            recorded_rates(record, first, beats)
            await through_pubsub(record, hub, beats)


if __name__ == "__main__":
    if sys.argv[1:2] == ["flood"]:
        flood(*sys.argv[2:])
    else:
        asyncio.run(main())
