# pyright: basic
# pytest-benchmark has no types.
"""
How fast are reads, updates and choices of the node feed, and the calls of the registry?

The quick cases, with 1,000 nodes on an embedded server; ``bench_feed_*.py`` compare the feed with
other libraries.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import change, node, recorded, register, state
from benchmarks.nodes.flood import to_sequencer

NODES = 1_000
MESSAGES = 5_000
ROUNDS = 5
CALLS = 200
NODE = "node-000007"
READS = 20_000


@pytest.fixture(scope="module")
def feed(hub: rxd.Hub, runner: asyncio.Runner) -> Iterator[rxd.Feed]:
    """A feed of a fleet."""

    async def entered() -> rxd.Feed:
        await register(hub, NODES)
        return await hub.feed().__aenter__()

    feed = runner.run(entered())
    yield feed
    runner.run(feed.close())


def keep(
    record: FigureRecord,
    benchmark: BenchmarkFixture,
    case: str,
    unit: str,
    calls: int = 1,
    **row: Any,
) -> None:
    """Record the best time per call, of *calls* calls in a round, or the calls a second."""
    stats = benchmark.stats
    if stats is not None:
        scale = {"ns": 1e9, "us": 1e6, "ms": 1e3, "1/s": 1}[unit]
        each = stats["min"] / calls * scale
        record.add(case, 1 / each if unit == "1/s" else each, unit, **row)


def read(get: Callable[[str], object]) -> None:
    """Read many times, because a call by pytest-benchmark takes longer than a read."""
    for _ in range(READS):
        get(NODE)


@pytest.mark.benchmark(group="read a node")
def bench_dict(benchmark: BenchmarkFixture, record: FigureRecord, feed: rxd.Feed) -> None:
    """A dict of the same nodes."""
    nodes = {node.id: node for node in feed.nodes()}
    record.control("dict and feed have the same node", nodes.get(NODE) is feed.get(NODE))
    benchmark.pedantic(read, (nodes.get,), rounds=30, warmup_rounds=3)
    keep(record, benchmark, "dict.get", "ns", READS, group="read a node")


@pytest.mark.benchmark(group="read a node")
def bench_get(benchmark: BenchmarkFixture, record: FigureRecord, feed: rxd.Feed) -> None:
    """``feed.get``."""
    benchmark.pedantic(read, (feed.get,), rounds=30, warmup_rounds=3)
    keep(record, benchmark, "feed.get", "ns", READS, group="read a node", base="dict.get")


@pytest.mark.benchmark(group="choose a node")
def bench_select(benchmark: BenchmarkFixture, record: FigureRecord, feed: rxd.Feed) -> None:
    """``feed.select`` of a pool, 200 at a time, as each counts as load for a second."""

    def select() -> None:
        for _ in range(CALLS):
            assert feed.select(pool="gpu") is not None

    # Placements are forgotten after a second.
    benchmark.pedantic(select, setup=lambda: time.sleep(1.1), rounds=ROUNDS)
    keep(record, benchmark, "feed.select of a pool", "us", CALLS, group="choose a node")


@pytest.mark.benchmark(group="apply 5,000 messages")
def bench_apply(
    benchmark: BenchmarkFixture, record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner
) -> None:
    """The sequencer and the replica alone."""
    with recorded(hub) as first:
        runner.run(register(hub, NODES))

    async def beat() -> None:
        for number in range(MESSAGES):
            await change(hub, [number % NODES], number // NODES + 1)

    with recorded(hub) as beats:
        runner.run(beat())
    record.control("every heartbeat was a message", len(beats) == MESSAGES)

    def apply(heard: object) -> None:
        assert callable(heard)
        for data in beats:
            heard(data)

    benchmark.pedantic(apply, setup=lambda: ((to_sequencer(first),), {}), rounds=ROUNDS)
    keep(record, benchmark, "stream and replica", "1/s", MESSAGES, group="apply messages")


@pytest.mark.benchmark(group="200 calls of the registry")
@pytest.mark.parametrize("what", ["ping", "heartbeat", "register", "reserve"])
def bench_calls(
    benchmark: BenchmarkFixture,
    record: FigureRecord,
    hub: rxd.Hub,
    feed: rxd.Feed,
    runner: asyncio.Runner,
    what: str,
) -> None:
    """Round trips, one after the other."""
    beats = itertools.count()

    async def call(number: int) -> None:
        match what:
            case "heartbeat":
                await hub.nodes.heartbeat(node(number).id, state(number, next(beats)))
            case "register":
                await hub.nodes.register(node(number), ttl=3600.0)
            case "reserve":
                async with feed.reserve(pool="gpu"):
                    pass
            case _:
                await hub.client.redis.ping()

    async def calls() -> None:
        for number in range(CALLS):
            await call(number)

    benchmark.pedantic(lambda: runner.run(calls()), rounds=ROUNDS, warmup_rounds=1)
    base = None if what == "ping" else "ping"
    keep(record, benchmark, what, "us", CALLS, group="calls of the registry", base=base)
