"""``fetch``: checks with the registry, and many of them at once."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from rxdispatch.node import Mode, Node
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.store.scripts import load_script
from rxdispatch.testing import no_leaks
from tests.nodes.fleets import (
    CHANGES,
    Account,
    Scene,
    Stepped,
    commands,
    converged,
    monitored,
    scene,
    stepped_feed,
)
from tests.nodes.places import until

TTL = 1000.0
LOOKUP = load_script("rxdispatch.nodes", "prelude", "lookup").sha.encode()


def _far_ahead(feed: Feed) -> bytes:
    """Return a heartbeat message that leaves a gap."""
    seq = feed._replica.high + 1000
    row = struct.pack(">BQIHI", 3, seq, 9000, 1, 8) + b"a" + struct.pack(">Q", 99)
    return struct.pack(">B16sQI", 1, feed._replica.epoch, seq, 1) + row


@asynccontextmanager
async def _doubtful(at: Scene, feed: Feed, engine: Stepped) -> AsyncGenerator[asyncio.Event]:
    """
    Keep *feed* in a state with a gap that it has noticed but not filled, during the block.

    In this state the feed has no proof that it is current, but still has the server.
    """
    go = asyncio.Event()
    engine.before.append(("changes", go.wait))
    await at.call("PUBLISH", CHANGES, _far_ahead(feed))
    await until(lambda: not feed.current)
    assert Mode.NORMAL is feed.mode
    try:
        yield go
    finally:
        go.set()


@asynccontextmanager
async def _one_feed(**settings: Any) -> AsyncGenerator[tuple[Scene, Feed, Stepped]]:
    async with no_leaks(), scene(pulse_interval=60.0) as at:
        feed, engine = stepped_feed(at.hub, **{"pulse_interval": 60.0, **settings})
        async with feed:
            yield at, feed, engine


async def test_a_check_that_takes_too_long() -> None:
    """After 50 ms the cached node is returned; the late answer is applied."""
    async with _one_feed() as (at, feed, engine):
        await at.straight.nodes.register(Node("a"), ttl=TTL)
        await until(lambda: feed.get("a"))
        async with _doubtful(at, feed, engine):
            await at.straight.nodes.heartbeat("a", {"x": 1})
            gate = at.proxy.hold(replies=True, count=None)
            cached = feed.get("a")
            loop = asyncio.get_running_loop()
            began = loop.time()
            assert cached is await feed.fetch("a")
            assert 0.04 < loop.time() - began
            assert {"a": cached, "b": None} == await feed.fetch_many(["a", "b"])
            assert 2 == feed.stats.check_timeouts
            assert 3 == feed.stats.hits_stale
            assert cached is feed.get("a")
            gate.open()
            await until(lambda: (node := feed.get("a")) and node.state == {"x": 1})
            await until(lambda: feed._replication.lookups._task is None)
            assert not feed._replication.lookups._wanted
            assert not feed._replication.lookups._asked


async def test_a_check_that_is_cancelled() -> None:
    """Other callers that wait for the same answer get it."""
    async with _one_feed(check_timeout=10.0) as (at, feed, engine):
        await at.straight.nodes.register(Node("a"), ttl=TTL)
        await until(lambda: feed.get("a"))
        async with _doubtful(at, feed, engine):
            gate = at.proxy.hold(replies=True, count=None)
            first, second = (asyncio.create_task(feed.fetch("a")) for _ in range(2))
            await gate.reached()
            first.cancel()
            gate.open()
            assert await second == feed.get("a")
            assert 1 == feed.stats.hits_redis
            assert first.cancelled()


async def test_a_late_answer_overwrites_nothing() -> None:
    """Nodes that changed, left or came back since the reply stay as they are."""
    async with _one_feed() as (at, feed, engine):
        nodes = at.straight.nodes
        await nodes.register([Node(name) for name in "abcd"], ttl=TTL)
        await until(lambda: feed.get("d"))
        with Account(feed) as account:
            answered, go = asyncio.Event(), asyncio.Event()

            async def hold() -> None:
                answered.set()
                await go.wait()

            engine.after.append(("lookup", hold))
            async with _doubtful(at, feed, engine):
                late = asyncio.create_task(feed.fetch_many([*"abcde"]))
                await answered.wait()
                await nodes.heartbeat("a", {"new": True})
                await nodes.remove("b")
                await nodes.remove("c")
                assert 1 == await nodes.register(Node("c", capacity=7), ttl=TTL)
                await nodes.register(Node("e", capacity=8), ttl=TTL)
                await late
            truth = await converged(at, feed)
            emitted = len(account.changes)
            go.set()
            await until(lambda: feed._replication.lookups._task is None)
            assert truth == {node.id: node for node in feed.nodes()}
            assert emitted == len(account.changes)


async def test_an_answer_that_is_ahead() -> None:
    """The change is emitted once, although the messages before it arrive later."""
    async with _one_feed(check_timeout=10.0) as (at, feed, engine):
        nodes = at.straight.nodes
        await nodes.register([Node(name) for name in "ab"], ttl=TTL)
        await until(lambda: feed.get("b"))
        with Account(feed) as account:
            async with _doubtful(at, feed, engine):
                await nodes.heartbeat("a", {"n": 1})
                await nodes.heartbeat("a", {"n": 2})
                await nodes.remove("b")
                await nodes.register(Node("c"), ttl=TTL)
                found = await feed.fetch_many([*"abc"])
                assert found["a"] is not None
                assert {"n": 2} == found["a"].state
                assert found["b"] is None
                assert found["c"] is not None
                assert 3 == feed.stats.hits_redis
            await converged(at, feed)
        assert ["updated"] == account.kinds("a")
        assert ["removed"] == account.kinds("b")
        assert ["added"] == account.kinds("c")


async def test_an_answer_of_another_epoch() -> None:
    """A reply of another epoch is ignored."""
    async with _one_feed(check_timeout=10.0) as (at, feed, engine):
        await at.straight.nodes.register(Node("a"), ttl=TTL)
        await until(lambda: feed.get("a"))
        with Account(feed) as account:
            async with _doubtful(at, feed, engine):
                await at.call("FLUSHALL")
                await at.straight.nodes.register(Node("a", capacity=9), ttl=TTL)
                node = await feed.fetch("a")
                assert node is not None
                assert 1 == node.capacity
                assert [] == account.kinds()
            await converged(at, feed)


async def test_a_thousand_misses_at_once() -> None:
    """The feed makes one call, then none for a while; a node registered meanwhile is found."""
    async with _one_feed(check_timeout=10.0) as (at, feed, engine), monitored(at.target) as lines:
        async with _doubtful(at, feed, engine):
            found = await asyncio.gather(*(feed.fetch("ghost") for _ in range(1000)))
            assert {None} == set(found)
            assert 1000 == feed.stats.misses
            assert 1 == engine.count["lookup"]
            began = asyncio.get_running_loop().time()
            for _ in range(10):
                assert await feed.fetch("ghost") is None
            # The feed remembers a miss for at least half a second.
            took = asyncio.get_running_loop().time() - began
            assert engine.count["lookup"] <= 2 + took / 0.5
        await at.straight.nodes.register(Node("ghost"), ttl=TTL)
        await until(lambda: feed.get("ghost"))
        assert await feed.fetch("ghost") is not None
        await at.call("ECHO", "the end")
        await until(lambda: commands(lines, b'"ECHO" "the end"'))
        assert engine.count["lookup"] == commands(lines, LOOKUP)


async def test_a_thousand_misses_of_different_nodes() -> None:
    """The feed makes no more calls than there are batches."""
    async with _one_feed(check_timeout=10.0) as (at, feed, engine), _doubtful(at, feed, engine):
        names = [f"{n}" for n in range(1000)]
        assert dict.fromkeys(names) == await feed.fetch_many(names)
        assert 2 >= engine.count["lookup"]


async def test_a_miss_hides_nothing_newer() -> None:
    """A node that was added after the miss is returned at once."""
    async with _one_feed(check_timeout=10.0) as (at, feed, engine), _doubtful(at, feed, engine):
        assert await feed.fetch("a") is None
        await at.hub.nodes.register(Node("b"), ttl=TTL)
        # A later look-up is applied ahead of the stream, which does not move.
        await feed._replication.lookups.ask("b")
        assert await feed.fetch("b") is not None
        assert await feed.fetch("a") is None


async def test_checks_at_once_by_many() -> None:
    """If 200 feeds check at the same time, they wait for a connection, and none fails."""
    async with no_leaks(), scene(pulse_interval=60.0) as at:
        await at.straight.nodes.register([Node(f"{n}") for n in range(200)], ttl=TTL)
        made = [
            stepped_feed(at.straight, pulse_interval=60.0, check_timeout=10.0) for _ in range(200)
        ]
        feeds = [feed for feed, _ in made]
        try:
            for n in range(0, 200, 20):
                await asyncio.gather(*(feed.__aenter__() for feed in feeds[n : n + 20]))
            go = asyncio.Event()
            for _, engine in made:
                engine.before.append(("changes", go.wait))
            await at.call("PUBLISH", CHANGES, _far_ahead(feeds[0]))
            await until(lambda: not any(feed.current for feed in feeds))
            found = await asyncio.gather(*(feed.fetch(f"{n}") for n, feed in enumerate(feeds)))
            assert [f"{n}" for n in range(200)] == [node.id for node in found if node]
            assert [1] * 200 == [feed.stats.hits_redis for feed in feeds]
            assert [0] * 200 == [feed.stats.check_timeouts for feed in feeds]
            go.set()
            await until(lambda: all(feed.current for feed in feeds))
        finally:
            await asyncio.gather(*(feed.close() for feed in feeds))


async def test_checks_of_one_feed() -> None:
    """If one feed checks 200 nodes at the same time, it makes one or two calls."""
    async with _one_feed(check_timeout=10.0) as (at, feed, engine):
        await at.straight.nodes.register([Node(f"{n}") for n in range(200)], ttl=TTL)
        await until(lambda: feed.get("199"))
        async with _doubtful(at, feed, engine):
            found = await asyncio.gather(*(feed.fetch(f"{n}") for n in range(200)))
            assert all(found)
            assert 200 == feed.stats.hits_redis + feed.stats.hits_stale
            assert 2 >= engine.count["lookup"]


async def test_a_current_feed_makes_no_call() -> None:
    """A current feed makes no call, not even for ids without a node."""
    async with _one_feed(check_timeout=10.0) as (at, feed, engine):
        await at.straight.nodes.register(Node("a"), ttl=TTL)
        await until(lambda: feed.get("a"))
        assert await feed.fetch("a") is feed.get("a")
        assert await feed.fetch("ghost") is None
        assert 0 == engine.count.get("lookup", 0)
        assert (2, 1) == (feed.stats.hits_l1, feed.stats.misses)
