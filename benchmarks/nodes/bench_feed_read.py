# pyright: basic
# None of cashews, aiocache and redis-py has complete types.
"""
What does a read of a node cost in a process that knows it?

Nanoseconds per read in a fleet of 10,000 nodes: of nodes chosen at random among the same 100, and
among all (which the processor's caches do not hold). ``feed.get`` and ``feed.fetch`` are compared
with a dict, with the in-process caches of other libraries, and with the server. The caches hold the
node's fields as a dict, and nothing expires. cashews speaks RESP2, as it receives no invalidation
under RESP3. The cache of redis-py works only with Redis and over TCP, so it is left out where there
is no ``redis-server``. redis-py asks for Redis 7.4 and is made to accept 7.0, which is enough here.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import redis
from aiocache import SimpleMemoryCache  # type: ignore[import-untyped]
from cachetools import TTLCache
from cashews import Cache
from cashews.backends.redis.client_side import BcastClientSide
from cashews.picklers import PicklerType
from cashews.wrapper.backend_settings import register_backend
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import HOUR, note_server, register, state
from tests.servers import system_redis

NODES = 10_000
FEW = 100
READS = 2_000
SLOW_READS = 500
ROUNDS = 5
SEED = 1
PACKAGES = ("aiocache", "cachetools", "cashews")

Read = Callable[[str], Any]
Rows = list[tuple[str, Callable[[list[str]], Awaitable[None]], int]]


def plain(read: Read) -> Callable[[list[str]], Awaitable[None]]:
    """Return a loop that calls a function for each id."""

    async def run(ids: list[str]) -> None:
        for node in ids:
            read(node)

    return run


def awaited(read: Read) -> Callable[[list[str]], Awaitable[None]]:
    """Return a loop that awaits a call for each id."""

    async def run(ids: list[str]) -> None:
        for node in ids:
            await read(node)

    return run


async def nothing(ids: list[str]) -> None:
    """The bare loop, which is part of all other cases."""
    for _ in ids:
        pass


async def medians(rows: Rows, names: list[str]) -> dict[str, float]:
    """Return nanoseconds per read; all take turns, so that noise of the machine affects all."""
    rng = random.Random(SEED)
    took: dict[str, list[float]] = {name: [] for name, _, _ in rows}
    for number in range(-1, ROUNDS):
        for name, read, count in rows:
            ids = rng.choices(names, k=count)
            start = time.perf_counter()
            await read(ids)
            if number >= 0:  # the first round warms up
                took[name].append((time.perf_counter() - start) / count * 1e9)
    loop = statistics.median(took.pop("loop"))
    return {name: statistics.median(times) - loop for name, times in took.items()}


async def measure(record: FigureRecord, rows: Rows, names: list[str]) -> None:
    """Record both tables."""
    for group, of in (("a few of them in turn", names[:FEW]), ("any of all", names)):
        for name, taken in (await medians(rows, of)).items():
            bound = 200 if name == "feed.get" and of is not names else None
            base = None if name == "dict.get" else "dict.get"
            record.add(name, taken, "ns", group=group, base=base, at_most=bound, judged="value")


def fill(client: Any, fields: dict[str, dict[str, Any]]) -> None:
    """Store each node as a hash."""
    with client.pipeline(transaction=False) as pipe:
        for name, values in fields.items():
            pipe.hset(name, mapping=values)
        pipe.execute()


async def filled(record: FigureRecord) -> None:
    """Fill every cache, then measure all of them."""
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(rxd.connect())
        feed = await stack.enter_async_context(hub.feed())
        await register(hub, NODES)
        names = [node.id for node in feed.nodes()]
        fields: dict[str, dict[str, Any]] = {name: state(n) for n, name in enumerate(names)}
        path = hub.client.target.path

        ttl_cache: Any = TTLCache(NODES, HOUR)
        ttl_cache.update(fields)
        memory, tracking, aio = Cache(), Cache(), SimpleMemoryCache()
        memory.setup("mem://", size=NODES)
        register_backend("unix", BcastClientSide, pass_uri=True, pickler=PicklerType.DEFAULT)
        tracking.setup(f"unix://{path}", protocol=2)
        await tracking.init()
        for name in names:
            await memory.set(name, fields[name])
            await tracking.set(name, fields[name])
            await aio.set(name, fields[name])
        bare = stack.enter_context(redis.Redis(unix_socket_path=path))
        fill(bare, fields)

        rows: Rows = [
            ("loop", nothing, READS),
            ("dict.get", plain(fields.get), READS),
            ("feed.get", plain(feed.get), READS),
            ("await feed.fetch, current", awaited(feed.fetch), READS),
            ("cachetools TTLCache", plain(ttl_cache.get), READS),
            ("cashews, memory", awaited(memory.get), SLOW_READS),
            ("cashews, client-side cache", awaited(tracking.get), SLOW_READS),
            ("aiocache, memory", awaited(aio.get), SLOW_READS),
            ("redis-py, HGETALL", plain(bare.hgetall), SLOW_READS),
        ]
        if shutil.which("redis-server") is not None:
            CacheProxyConnection.MIN_ALLOWED_VERSION = "7.0.0"  # pyright: ignore[reportAttributeAccessIssue]
            config = CacheConfig(max_size=NODES)
            url = stack.enter_context(system_redis())
            cached = stack.enter_context(redis.from_url(url, protocol=3, cache_config=config))
            fill(cached, fields)
            for name in names:
                cached.hgetall(name)
            rows.append(("redis-py, client-side cache", plain(cached.hgetall), SLOW_READS))
        node = feed.get(names[7])
        same = node is not None and fields[names[7]] == node.state
        there = same and all(
            [
                await memory.get(names[7]) == fields[names[7]],
                await tracking.get(names[7]) == fields[names[7]],
                await aio.get(names[7]) == fields[names[7]],
                len(bare.hgetall(names[7])) == len(fields[names[7]]),
            ]
        )
        record.control("every cache has the same node", there)
        await note_server(record, hub)
        await measure(record, rows, names)
        await memory.close()
        await tracking.close()


def bench_feed_read(record: FigureRecord) -> None:
    """All of them on one fleet, in turn."""
    record.note(nodes=NODES, few=FEW)
    asyncio.run(filled(record))
