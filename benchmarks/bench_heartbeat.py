# pyright: basic
# The types of redis-py commands are partial.
"""
How long do the calls of the registry take?

Prints percentiles of the round trip in milliseconds, on a fleet of 1,000 nodes which a feed of
this hub follows, as every scheduler's does: PING, and a pipeline of HSET, EXPIRE and PUBLISH, which
is a heartbeat that checks nothing; then heartbeats with and without news, registering, and
reserving and releasing a slot, of which choosing the node is a part. All take turns. At the end,
256 heartbeats in one call, and what that comes to a node.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from typing import Any

import rxdispatch as rxd
from benchmarks.fleet import node, p50_p99, register, show_latency, state

NODES = 1_000
ROUNDS = 1_500
WARM = 100
BATCH = 256

Step = Callable[[], Awaitable[Any]]


async def measure(hub: rxd.Hub, feed: rxd.NodeFeed) -> None:
    """Measure all in turn."""
    bare, nodes = hub.client.redis, hub.nodes
    count = itertools.count()
    slots: list[rxd.Slot] = []

    async def unchecked() -> None:
        number = next(count)
        name = f"bare-{number % NODES}"
        packed = node(number % NODES).packed_state
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

    def beat() -> Awaitable[int]:
        number = next(count)
        return nodes.heartbeat(node(number % NODES).id, state(number, number))

    steps: dict[str, Step] = {
        "PING": bare.ping,
        "HSET + EXPIRE + PUBLISH, a pipeline": unchecked,
        "heartbeat with news": beat,
        "heartbeat without news": lambda: nodes.heartbeat(node(next(count) % NODES).id),
        "register a new node": lambda: nodes.register(node(NODES + next(count)), ttl=3600.0),
        "register a known node": lambda: nodes.register(node(next(count) % NODES), ttl=3600.0),
        "reserve a slot": reserve,
        "release it": lambda: feed.release(slots.pop()),
        "async with feed.reserve(pool=...)": both,
    }
    took = await turns(steps, ROUNDS)
    floor = took["HSET + EXPIRE + PUBLISH, a pipeline"]
    for name, seconds in took.items():
        show_latency(name, seconds, floor)
    # By itself: what the feed hears of it keeps the loop busy for a while after.
    batches = (await turns({"many": many}, ROUNDS // 10))["many"]
    show_latency(f"heartbeats, {BATCH} in a call", batches, floor)
    print(f"that is {p50_p99(batches)[0] / BATCH * 1e6:.1f} us a heartbeat")


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


async def main() -> None:
    """Measure on one embedded server."""
    async with rxd.connect() as hub:
        await register(hub, NODES)
        async with hub.feed() as feed:
            await measure(hub, feed)


if __name__ == "__main__":
    asyncio.run(main())
