# pyright: basic
# The types of redis-py commands are partial.
"""
How many messages a second does a feed apply?

A fleet of 10,000 nodes and 20,000 messages (or ``--size``) of one heartbeat with news each,
recorded as they were published. Messages a second

- from the recorded bytes alone: pushed through a Subject to an observer that does nothing; to an
  observer that puts three fields and the decoded state into a dict without a check, which is the
  least that any reader must do; to the feed's sequencer and replica, with their gap checks;
- through Pub/Sub, from another process that publishes as fast as it can: redis-py's own PubSub
  into a Subject, and the feed.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import msgspec
from reactivex import Subject
from redis import asyncio as aioredis

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.flood import NODES, Flood, followed, published, saved, to_sequencer
from rxdispatch.nodes.records import MessageReader

MESSAGES = 20_000
ROUNDS = 3
DICT = "Subject to a dict, nothing checked"
SEQUENCER = "Subject to Sequencer and Replica"
PUBSUB = "redis-py PubSub to a Subject"
# Where the id begins in a message of one row, and the size of the fixed part of a record.
ID, SPEC = 48, 34


# -- from recorded bytes ---------------------------------------------------------------------


def to_nothing(_: list[bytes]) -> Callable[[bytes], Any]:
    """Return a reader that does nothing."""
    return lambda _: None


def to_dict(_: list[bytes]) -> Callable[[bytes], Any]:
    """Return a reader that decodes the one row of a message into a dict, without checks."""
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


def recorded_rates(record: FigureRecord, first: list[bytes], beats: list[bytes]) -> None:
    """Record the rates from recorded bytes."""
    cases = {DICT: to_dict, "Subject to no observer": to_nothing, SEQUENCER: to_sequencer}
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


async def bare(path: str, channel: bytes, flood: Flood, messages: int) -> float:
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
        flood.go()
        while count < messages:
            message = await pubsub.get_message(ignore_subscribe_messages=True, timeout=5.0)
            if message is not None:
                start = start or time.perf_counter()
                source.on_next(message["data"])
        return messages / (time.perf_counter() - start)


async def through_pubsub(record: FigureRecord, hub: rxd.Hub, beats: list[bytes]) -> None:
    """Record the rates through Pub/Sub."""
    path = str(hub.client.target.path)
    fleet: Any = hub._fleet
    channel: bytes = fleet.keys.changes
    first = MessageReader().message(beats[0]).first
    rates: dict[str, list[float]] = {PUBSUB: [], "feed": []}
    with tempfile.TemporaryDirectory() as folder:
        flood = await Flood.start(path, saved(beats, folder), channel)
        for number in range(-1, ROUNDS):
            rate = await bare(path, channel, flood, len(beats))
            async with hub.feed() as feed:
                ours = await followed(feed, flood, first, len(beats))
            if number >= 0:
                rates[PUBSUB].append(rate)
                rates["feed"].append(ours)
        await flood.stop()
    record.control("both heard every message, the feed without a gap", True)
    keep(record, "through Pub/Sub", rates, PUBSUB)


def keep(record: FigureRecord, group: str, rates: dict[str, list[float]], base: str) -> None:
    """Record the medians."""
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


async def measure(record: FigureRecord, hub: rxd.Hub, messages: int) -> None:
    """Record messages, then measure both ways."""
    first, beats = await published(hub, messages)
    record.control("every heartbeat was a message", len(beats) == messages)
    recorded_rates(record, first, beats)
    await through_pubsub(record, hub, beats)


def bench_feed_apply(
    record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner, size: int | None
) -> None:
    """From recorded bytes, then through Pub/Sub."""
    messages = size or MESSAGES
    record.note(nodes=NODES, messages=messages, rounds=ROUNDS)
    runner.run(measure(record, hub, messages))
