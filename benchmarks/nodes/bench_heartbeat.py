# pyright: basic
# The types of redis-py commands are partial.
"""
How long do the calls of the registry take?

Percentiles of the round trip in milliseconds, on a fleet of 1,000 nodes. A feed of this hub follows
the fleet, as in every scheduler. The baselines are PING, and a pipeline of HSET, EXPIRE and
PUBLISH, which is a heartbeat without checks. Beside them: heartbeats with and without news,
registering a node, and reserving a slot, which includes choosing the node, and releasing it. All
take turns. At the end, 256 heartbeats in one call, and the time for each of them.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import add_latencies, node, p50_p99, register, state

NODES = 1_000
ROUNDS = 600
WARM = 100
BATCH = 256
BARE = "HSET + EXPIRE + PUBLISH, a pipeline"
BUDGETS = {
    "heartbeat with news": (None, 0.5),
    "heartbeat without news": (None, 0.5),
    "reserve a slot": (0.3, None),
}

Step = Callable[[], Awaitable[Any]]


async def measure(record: FigureRecord, hub: rxd.Hub, feed: rxd.Feed) -> None:
    """Measure all in turn."""
    bare, nodes = hub.client.redis, hub.nodes
    count = itertools.count()
    slots: list[rxd.Slot] = []
    registered = 0

    async def unchecked() -> None:
        number = next(count)
        name = f"bare-{number % NODES}"
        packed = node(number % NODES)._packed_state
        async with bare.pipeline(transaction=False) as pipe:
            pipe.hset(name, mapping={"state": packed, "seen": number})
            pipe.expire(name, 30)
            pipe.publish("bare", packed)
            await pipe.execute()

    async def many() -> None:
        number = next(count)
        await nodes.heartbeats({node(n).id: state(n, number) for n in range(BATCH)})

    async def reserve() -> None:
        slots.extend(await feed.reserve_many(1))

    async def both() -> None:
        async with feed.reserve(pool="gpu"):
            pass

    def register_new() -> Awaitable[Any]:
        nonlocal registered
        registered += 1
        return nodes.register(node(NODES + next(count)), ttl=3600.0)

    def beat() -> Awaitable[int]:
        number = next(count)
        return nodes.heartbeat(node(number % NODES).id, state(number, number))

    steps: dict[str, Step] = {
        "PING": bare.ping,
        BARE: unchecked,
        "heartbeat with news": beat,
        "heartbeat without news": lambda: nodes.heartbeat(node(next(count) % NODES).id),
        "register a new node": register_new,
        "register a known node": lambda: nodes.register(node(next(count) % NODES), ttl=3600.0),
        "reserve a slot": reserve,
        "release it": lambda: feed.release(slots.pop()),
        "async with feed.reserve(pool=...)": both,
    }
    took = await turns(steps, ROUNDS)
    # Measured apart: the messages that the feed then receives keep the loop busy for a while.
    together = f"heartbeats, {BATCH} in a call"
    took |= await turns({together: many}, ROUNDS // 10)
    record.control("every slot was given back", not slots)
    known = NODES + registered
    record.control("every new node is in the feed", len(feed.nodes()) == known)
    add_latencies(record, took, base=BARE, at_most=BUDGETS)
    each = p50_p99(took[together])[0] / BATCH
    single = p50_p99(took["heartbeat with news"])[0]
    record.add("a heartbeat by itself", single * 1e6, "us", group="many heartbeats")
    base = "a heartbeat by itself"
    record.add(f"one of {BATCH}", each * 1e6, "us", group="many heartbeats", base=base)


async def turns(steps: dict[str, Step], rounds: int) -> dict[str, list[float]]:
    """Return seconds by step."""
    took: dict[str, list[float]] = {name: [] for name in steps}
    for number in range(-WARM, rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            await step()
            if number >= 0:
                took[name].append(time.perf_counter() - start)
    return took


async def followed(record: FigureRecord, hub: rxd.Hub) -> None:
    """Measure while a feed of this hub follows the fleet."""
    await register(hub, NODES)
    async with hub.feed() as feed:
        await measure(record, hub, feed)


def bench_heartbeat(record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner) -> None:
    """All calls on one embedded server."""
    record.note(nodes=NODES, rounds=ROUNDS)
    runner.run(followed(record, hub))
