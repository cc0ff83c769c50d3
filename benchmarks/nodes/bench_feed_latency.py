# pyright: basic
# Neither cashews nor redis-py has complete types.
"""
How long does it take until another process sees a change of a node?

A second process writes, and prints when each write began; this process subscribes. Both read the
host's monotonic clock. Percentiles over 500 changes, one at a time:

- ``PUBLISH`` of the state to redis-py's PubSub, and from there into a Subject: the floor;
- ``hub.nodes.heartbeat`` to ``feed.changes``, and the same counted from the return of the call;
- ``SET`` in cashews with client-side caching to the invalidation of the entry here, over RESP2,
  because cashews receives no invalidation under RESP3.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from cashews.backends.redis.client_side import BcastClientSide
from reactivex import Subject
from redis import asyncio as aioredis

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import add_latencies, node, register, state
from benchmarks.support.roles import start_role

PACKAGES = ("cashews",)
NODES = 1_000
CHANGES = 500
WARM = 100
PAUSE = 0.002
WAIT = 2.0
BARE = "PUBLISH to PubSub to a Subject"
OURS = "heartbeat to feed.changes"

Write = Callable[[int], Awaitable[Any]]


async def writer(path: str, what: str) -> None:
    """The other process: write once for each line on stdin; print when it began and ended."""
    lines = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    async with rxd.connect(f"unix://{path}") as hub, aioredis.Redis(unix_socket_path=path) as bare:
        cache = BcastClientSide(f"unix://{path}", protocol=2)
        if what == "cashews":
            await cache.init()
        writes: dict[str, Write] = {
            "bare": lambda number: bare.publish("bare", repr(state(number)).encode()),
            "feed": lambda number: hub.nodes.heartbeat(node(number % NODES).id, state(0, number)),
            "cashews": lambda number: cache.set("key", b"%d" % number),
        }
        number = 0
        print("ready", flush=True)
        while await lines.readline():
            number += 1
            start = time.monotonic()
            await writes[what](number)
            print(start, time.monotonic(), flush=True)
        if what == "cashews":
            await cache.close()


async def measure(path: str, what: str, seen: asyncio.Queue[float]) -> list[tuple[float, float]]:
    """Return the seconds from the beginning and from the end of each write until it was seen."""
    process = await start_role(__name__, path, what)
    assert process.stdin is not None
    assert process.stdout is not None
    took: list[tuple[float, float]] = []
    for number in range(WARM + CHANGES):
        process.stdin.write(b"go\n")
        async with asyncio.timeout(WAIT):
            at = await seen.get()
            start, end = map(float, (await process.stdout.readline()).split())
        if number >= WARM:
            took.append((at - start, at - end))
        await asyncio.sleep(PAUSE)
    process.stdin.close()
    await process.wait()
    return took


async def bare(path: str) -> list[tuple[float, float]]:
    """Measure Pub/Sub into a Subject."""
    seen: asyncio.Queue[float] = asyncio.Queue()
    source: Subject[Any] = Subject()
    source.subscribe(lambda _: seen.put_nowait(time.monotonic()))
    async with aioredis.Redis(unix_socket_path=path) as server, server.pubsub() as pubsub:
        await pubsub.subscribe("bare")
        await pubsub.get_message(timeout=1.0)

        async def listen() -> None:
            async for message in pubsub.listen():
                source.on_next(message)

        listening = asyncio.create_task(listen())
        try:
            return await measure(path, "bare", seen)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


async def feed(hub: rxd.Hub, path: str) -> list[tuple[float, float]]:
    """Measure the feed."""
    seen: asyncio.Queue[float] = asyncio.Queue()
    async with hub.feed() as fed:
        with fed.changes.subscribe(lambda _: seen.put_nowait(time.monotonic())):
            return await measure(path, "feed", seen)


class ReportingCache:
    """The local cache of cashews, which reports when it deletes an entry."""

    def __init__(self, cache: Any, seen: asyncio.Queue[float]) -> None:
        self._cache = cache
        self._seen = seen

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cache, name)

    async def delete(self, key: str) -> Any:
        """Delete the entry and report the time."""
        deleted = await self._cache.delete(key)
        self._seen.put_nowait(time.monotonic())
        return deleted


async def cashews(path: str) -> list[tuple[float, float]]:
    """Measure the invalidation of an entry of cashews."""
    seen: asyncio.Queue[float] = asyncio.Queue()
    cache = BcastClientSide(f"unix://{path}", protocol=2)
    await cache.init()
    cache._local_cache = ReportingCache(cache._local_cache, seen)
    try:
        return await measure(path, "cashews", seen)
    finally:
        await cache.close()


async def measured(hub: rxd.Hub) -> dict[str, list[float]]:
    """Return the seconds of each case."""
    path = str(hub.client.target.path)
    await register(hub, NODES)
    floor = [whole for whole, _ in await bare(path)]
    ours = await feed(hub, path)
    theirs = [whole for whole, _ in await cashews(path)]
    return {
        BARE: floor,
        OURS: [whole for whole, _ in ours],
        "the same, from the reply to the writer": [late for _, late in ours],
        "cashews: SET to invalidated": theirs,
    }


def bench_feed_latency(record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner) -> None:
    """All on one embedded server."""
    record.note(nodes=NODES, changes=CHANGES)
    took = runner.run(measured(hub))
    each = all(len(seconds) == CHANGES for seconds in took.values())
    record.control("every change was seen before the next one was made", each)
    add_latencies(record, took, base=BARE, at_most={OURS: (0.4, 1.5)})


if __name__ == "__main__":
    asyncio.run(writer(*sys.argv[1:]))
