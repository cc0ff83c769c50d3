# pyright: basic
# The types of redis-py commands are partial.
"""
How long do the calls of a node registry take behind a lock, and with a feed?

Estimates for a registry behind a lock are 50 to 200 ms (p50) and 200 to 500 ms (p99) to choose a
node, 10 to 50 ms for a heartbeat and 20 to 100 ms to register. The goals for the feed are 1 to 10,
10 to 50, 1 to 5 and 2 to 10 ms.

"Locked" is a registry behind a lock: one ``asyncio.Lock`` a process around everything; each choice
reads the hashes of all nodes from Redis, takes the least loaded node and increments its jobs. The
feed chooses in the process and reserves in Redis. The figures are percentiles in ms, from the call
to its end, with 1, 16 and 128 calls at a time, and the calls a second. There are 200 nodes, and
each caller gives its slot back (not timed). Heartbeats and registrations alternate with choices.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import add_latencies, node, register, state

NODES = 200
SLOTS = 8
WIDTHS = (1, 16, 128)
CALLS = {"locked": 200, "feed": 1_000}
HEADER = ("choose", "heartbeat", "register")


class LockedRegistry:
    """A registry of hashes behind a lock."""

    def __init__(self, redis: Any) -> None:
        self._redis = redis
        self._lock = asyncio.Lock()

    async def register(self, number: int) -> None:
        """Write a node."""
        made = node(number)
        async with self._lock, self._redis.pipeline(transaction=False) as pipe:
            fields = {"pool": made.pool, "capacity": SLOTS, "jobs": 0, "state": made._packed_state}
            pipe.sadd("locked", made.id)
            pipe.hset(f"locked:{made.id}", mapping=fields)
            pipe.expire(f"locked:{made.id}", 3600)
            await pipe.execute()

    async def heartbeat(self, number: int, beat: int) -> None:
        """Write a state."""
        made = node(number)
        async with self._lock, self._redis.pipeline(transaction=False) as pipe:
            pipe.hset(f"locked:{made.id}", mapping={"state": made._packed_state, "beat": beat})
            pipe.expire(f"locked:{made.id}", 3600)
            await pipe.execute()

    @contextlib.asynccontextmanager
    async def chosen(self) -> AsyncIterator[None]:
        """Take the least loaded node of a pool, and give it back."""
        async with self._lock:
            ids = sorted(await self._redis.smembers("locked"))
            async with self._redis.pipeline(transaction=False) as pipe:
                for name in ids:
                    pipe.hgetall(b"locked:" + name)
                nodes = dict(zip(ids, await pipe.execute(), strict=True))
            having = [
                (int(fields[b"jobs"]), name)
                for name, fields in nodes.items()
                if fields[b"pool"] == b"gpu" and int(fields[b"jobs"]) < int(fields[b"capacity"])
            ]
            best = min(having)[1]
            await self._redis.hincrby(b"locked:" + best, "jobs", 1)
        yield
        await self._redis.hincrby(b"locked:" + best, "jobs", -1)

    async def taken(self) -> int:
        """Return how many slots are taken on all nodes."""
        ids = await self._redis.smembers("locked")
        return sum([int(await self._redis.hget(b"locked:" + name, "jobs")) for name in ids])


class FeedRegistry:
    """The registry and the feed of a hub."""

    def __init__(self, hub: rxd.Hub, feed: rxd.Feed) -> None:
        self._hub = hub
        self._feed = feed

    async def register(self, number: int) -> None:
        """Register a node."""
        await self._hub.nodes.register(node(number), ttl=3600.0)

    async def heartbeat(self, number: int, beat: int) -> None:
        """Send a heartbeat with a state."""
        await self._hub.nodes.heartbeat(node(number).id, state(number, beat))

    def chosen(self) -> AbstractAsyncContextManager[Any]:
        """Reserve a slot."""
        return self._feed.reserve(pool="gpu")


async def measure(
    way: LockedRegistry | FeedRegistry, width: int, calls: int
) -> dict[str, list[float]]:
    """Return the seconds of each call by name, and of the whole run under an empty name."""
    took: dict[str, list[float]] = {name: [] for name in HEADER}
    numbers = iter(range(calls))

    async def timed(name: str, call: Callable[[], Any]) -> None:
        start = time.perf_counter()
        await call()
        took[name].append(time.perf_counter() - start)

    async def caller() -> None:
        for number in numbers:
            async with AsyncExitStack() as stack:
                slot = way.chosen()
                await timed("choose", partial(stack.enter_async_context, slot))
            at = number % NODES
            await timed("heartbeat", partial(way.heartbeat, at, number))
            if number % 10 == 0:
                await timed("register", partial(way.register, NODES + at))

    start = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(width)))
    took[""] = [time.perf_counter() - start]
    return took


def keep(record: FigureRecord, width: int, took: dict[str, dict[str, list[float]]]) -> None:
    """Record both ways with *width* calls at a time."""
    for what in HEADER:
        times = {name: seconds[what] for name, seconds in took.items()}
        add_latencies(record, times, base="locked", group=what, x=width)
    for name, seconds in took.items():
        rate = CALLS[name] / seconds[""][0]
        base = None if name == "locked" else "locked"
        record.add(name, rate, "1/s", group="chosen and given back", x=width, base=base)


async def both(record: FigureRecord, hub: rxd.Hub) -> None:
    """Measure both ways in turn."""
    await register(hub, NODES)
    locked = LockedRegistry(hub.client.redis)
    for number in range(NODES):
        await locked.register(number)
    async with hub.feed() as feed:
        ways: dict[str, LockedRegistry | FeedRegistry] = {
            "locked": locked,
            "feed": FeedRegistry(hub, feed),
        }
        for width in WIDTHS:
            took: dict[str, dict[str, list[float]]] = {}
            for name, way in ways.items():
                await measure(way, width, CALLS[name] // 10)  # warms up
                took[name] = await measure(way, width, CALLS[name])
            keep(record, width, took)
        record.control("every slot behind the lock was given back", not await locked.taken())
        jobs = sum(known.current_jobs for known in feed.nodes())
        record.control("every slot of the feed was given back", jobs == 0)


def bench_locked_registry(record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner) -> None:
    """Both ways on one embedded server."""
    record.note(nodes=NODES, slots=SLOTS, calls=CALLS)
    runner.run(both(record, hub))
