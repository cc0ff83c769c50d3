"""A server that is unreachable, and nodes that are silent: what a feed reports and keeps."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import pytest

from rxdispatch.config import FeedSettings, Settings
from rxdispatch.hub import connect
from rxdispatch.node import Mode, Node, NodeStatus
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.store.url import Target
from tests.failures.fleet import lasting
from tests.nodes.fleets import Account, Scene, converged, nodes_of, scene
from tests.nodes.places import KINDS, Ground, ground, until
from tests.servers import Kind

every_kind = pytest.mark.parametrize("kind", KINDS)

TTL = 1000.0

# -- an unreachable server -------------------------------------------------------------------


@every_kind
async def test_a_server_that_is_killed_and_comes_back(kind: Kind) -> None:
    """Reads continue, and the mode changes only twice."""
    settings = Settings(feed=FeedSettings(pulse_interval=0.2))
    async with (
        lasting(kind) as server,
        connect(server.target.safe, settings=settings) as hub,
        hub.feed() as feed,
    ):
        await hub.nodes.register([Node("a"), Node("b")], ttl=TTL)
        modes: list[Mode] = []
        feed.modes.subscribe(modes.append)
        with Account(feed) as account:
            before = nodes_of(feed)
            server.kill()
            await until(lambda: feed.mode is Mode.LOCAL_ONLY)
            assert before == nodes_of(feed)
            assert before["a"] == await feed.fetch("a")
            assert feed.select() is not None
            assert 1 == feed.stats.hits_stale
            await asyncio.sleep(1.0)
            server.start()
            await server.answers()
            await until(lambda: feed.mode is Mode.NORMAL)
            await until(lambda: feed.current)
            async with connect(server.target.safe) as other:
                await other.nodes.heartbeat("a", {"x": 1})
                await until(lambda: (node := feed.get("a")) and node.state == {"x": 1})
            assert [Mode.NORMAL, Mode.LOCAL_ONLY, Mode.NORMAL] == modes
        assert {"updated"} == set(account.kinds())


async def test_a_frozen_server() -> None:
    """The connections stay open but silent, and the mode returns to NORMAL after the thaw."""
    settings = Settings(feed=FeedSettings(pulse_interval=0.2))
    async with (
        lasting("valkey") as server,
        connect(server.target.safe, settings=settings) as hub,
        hub.feed() as feed,
    ):
        await hub.nodes.register([Node("a"), Node("b")], ttl=TTL)
        modes: list[Mode] = []
        feed.modes.subscribe(modes.append)
        server.freeze()
        try:
            await until(lambda: feed.mode is Mode.LOCAL_ONLY)
            assert {"a", "b"} == nodes_of(feed).keys()
        finally:
            server.thaw()
        await until(lambda: feed.mode is Mode.NORMAL)
        assert [Mode.NORMAL, Mode.LOCAL_ONLY, Mode.NORMAL] == modes


async def test_a_short_outage_is_none() -> None:
    """An outage of about one pulse does not change the mode."""
    async with scene(pulse_interval=0.4) as at, at.hub.feed() as feed:
        modes: list[Mode] = []
        feed.modes.subscribe(modes.append)
        await at.straight.nodes.register(Node("a"), ttl=TTL)
        for _ in range(4):
            at.proxy.cut()
            await asyncio.sleep(0.3)
        await converged(at, feed)
        assert [Mode.NORMAL] == modes


def _proven(feed: Feed, before: float) -> bool:
    return feed._sync.proven_at > before


async def test_a_line_that_comes_and_goes() -> None:
    """The line is good for less than two pulses at a time, so the mode does not flap."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        await at.straight.nodes.register(Node("a"), ttl=TTL)
        modes: list[Mode] = []
        feed.modes.subscribe(modes.append)
        at.proxy.blackhole()
        await until(lambda: feed.mode is Mode.LOCAL_ONLY)
        for _ in range(5):
            proofs = feed._sync.proven_at
            at.proxy.heal()
            await until(partial(_proven, feed, proofs))
            at.proxy.blackhole()
            await asyncio.sleep(0.5)
        at.proxy.heal()
        await until(lambda: feed.mode is Mode.NORMAL)
        # Two proofs may fit into one of these moments, but not into all.
        assert len(modes) <= 7
        await at.straight.nodes.heartbeat("a", {"x": 1})
        await converged(at, feed)


async def test_nothing_proven_for_long() -> None:
    """Every node is suspect and none is chosen, until there is a proof again."""
    async with scene(pulse_interval=0.2, max_staleness=1.5) as at, at.hub.feed() as feed:
        await at.straight.nodes.register([Node("a"), Node("b"), Node("c")], ttl=TTL)
        await at.straight.nodes.drain("c")
        before = await converged(at, feed)
        with Account(feed) as account:
            at.proxy.blackhole()
            await until(lambda: {NodeStatus.SUSPECT} == {node.status for node in feed.nodes()})
            assert feed.select() is None
            assert before.keys() == nodes_of(feed).keys()
            at.proxy.heal()
            await until(lambda: before == nodes_of(feed))
            assert feed.select() is not None
        for name in "abc":
            assert ["suspect", "updated"] == account.kinds(name)


# -- what it costs ---------------------------------------------------------------------------


@asynccontextmanager
async def _feeds(
    at: Target, count: int, *, watching: Callable[[Feed], object] = lambda _: None
) -> AsyncGenerator[list[Feed]]:
    """Run feeds with default settings, each with its own hub."""
    async with AsyncExitStack() as stack:
        feeds: list[Feed] = []
        for _ in range(count):
            hub = await stack.enter_async_context(connect(at.safe))
            feeds.append(await stack.enter_async_context(hub.feed()))
            watching(feeds[-1])
        yield feeds


async def _calls(call: Callable[..., Awaitable[bytes]]) -> int:
    """Return how many commands the server has run, including those of scripts."""
    stats = (await call("INFO", "commandstats")).decode()
    return sum(
        int(line.partition("calls=")[2].partition(",")[0])
        for line in stats.splitlines()
        if line.startswith("cmdstat_")
    )


async def test_what_twenty_feeds_ask_of_a_server() -> None:
    """The rate of commands is bounded, in normal operation and when all feeds reconnect."""
    async with scene() as at, _feeds(at.proxy.target, 20) as feeds:
        await at.straight.nodes.register([Node(f"{n}") for n in range(50)], ttl=TTL)
        await until(lambda: all(len(feed.nodes()) == 50 for feed in feeds))
        loop = asyncio.get_running_loop()

        async def rate(seconds: float) -> float:
            calls, began = await _calls(at.call), loop.time()
            await asyncio.sleep(seconds)
            return (await _calls(at.call) - calls) / (loop.time() - began)

        # A pulse is about nine commands, and a ping.
        assert await rate(3.0) < 20 * 10 * 1.5
        modes: list[Mode] = []
        for feed in feeds:
            feed.modes.subscribe(modes.append)
        at.proxy.blackhole()
        await until(lambda: all(feed.mode is Mode.LOCAL_ONLY for feed in feeds))
        # The server now runs only the commands of the direct connection.
        assert await rate(1.0) < 20
        await at.straight.nodes.heartbeats({f"{n}": {"x": n} for n in range(50)})
        at.proxy.heal()
        # Each feed connects and catches up once; until it is NORMAL it pulses five times a second.
        assert await rate(2.0) < 20 * 10 * 12
        await until(lambda: all(feed.mode is Mode.NORMAL for feed in feeds))
        await converged(Scene(at.target, at.proxy, at.hub, at.straight), *feeds)
        assert 3 * 20 == len(modes)
        assert await rate(2.0) < 20 * 10 * 1.5


# -- silent nodes ----------------------------------------------------------------------------


def _fleet(count: int) -> list[Node]:
    return [Node(f"{n:02}") for n in range(count)]


@pytest.mark.parametrize("kind", ["redis"])
async def test_most_of_a_fleet_lapses_at_once(kind: Kind) -> None:
    """The nodes are suspect and kept; after a while they are removed."""
    async with ground(kind, pulse_interval=0.2, mass_lapse_delay=5.0) as it, it.hub.feed() as feed:
        await it.nodes.register(_fleet(20), ttl=10.0)
        await it.other.nodes.register([Node(f"{n:02}") for n in range(15, 20)], ttl=TTL)
        with Account(feed) as account:
            await it.later(11.0)
            # A new feed marks nodes as suspect if they have lapsed on the server.
            async with it.other.feed() as late:
                lapsed = [node for node in late.nodes() if node.status is NodeStatus.SUSPECT]
                assert 15 == len(lapsed)
                assert 20 == len(late.nodes())
                assert late.select() is not None
                assert int((late.select() or Node("0")).id) >= 15
            assert 20 == len(feed.nodes())
            assert 0 == account.count("removed")
            await until(lambda: account.count("removed") == 15, 20.0)
        assert [f"{n:02}" for n in range(15, 20)] == sorted(nodes_of(feed))


async def test_a_fleet_that_was_only_cut_off() -> None:
    """The nodes are suspect while they send no heartbeats, and ready with the next one."""
    async with ground(pulse_interval=0.2) as it, it.hub.feed() as feed:
        await it.nodes.register(_fleet(12), ttl=1.0)
        with Account(feed) as account:
            await until(lambda: {NodeStatus.SUSPECT} == {node.status for node in feed.nodes()})
            await asyncio.sleep(1.0)
            assert 12 == len(feed.nodes())
            await it.other.nodes.heartbeats({f"{n:02}": {"back": True} for n in range(12)})
            await until(lambda: {NodeStatus.READY} == {node.status for node in feed.nodes()})
        assert ["suspect", "updated"] == account.kinds("03")[:2]
        assert 0 == account.count("removed")


@every_kind
async def test_a_small_fleet_lapses(kind: Kind) -> None:
    """Of fewer than ten nodes, all may be removed; each feed emits each removal once."""
    async with ground(kind, pulse_interval=0.2) as it, AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(hub.feed()) for hub in (it.hub, it.other) * 3]
        async with it.published() as messages:
            await it.nodes.register(_fleet(9), ttl=0.7)
            await until(lambda: all(len(feed.nodes()) == 9 for feed in feeds))
            accounts = [Account(feed) for feed in feeds]
            await until(lambda: not any(feed.nodes() for feed in feeds))
            await _settled(it)
        for account in accounts:
            account.check()
            for node in _fleet(9):
                assert 1 == account.kinds(node.id).count("removed")
                assert "removed" == account.kinds(node.id)[-1]
            assert 0 == account.count("added")
        gone = [row.id for message in messages for row in message.rows if row.node is None]
        assert [node.id for node in _fleet(9)] == sorted(gone)


async def _settled(it: Ground) -> None:
    """Wait for several pulses."""
    async with it.hub.feed() as feed:
        count = feed.stats.redis.count
        await until(lambda: feed.stats.redis.count >= count + 3)


async def test_a_lapse_while_the_feed_is_cut_off() -> None:
    """The node is suspect by the feed's own clock; the feed learns its fate later."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed, at.straight.feed():
        await at.straight.nodes.register([Node("dead"), Node("alive")], ttl=1.5)
        await until(lambda: len(feed.nodes()) == 2)
        with Account(feed) as account:
            at.proxy.blackhole()
            for _ in range(20):
                await asyncio.sleep(0.15)
                await at.straight.nodes.heartbeat("alive", {"x": 1})
            assert {"alive"} == (await at.relisted()).keys()
            at.proxy.heal()
            await at.straight.nodes.register(Node("alive"), ttl=TTL)
            await until(lambda: feed.get("dead") is None)
            await converged(at, feed)
            node = feed.get("alive")
            assert node is not None
            assert NodeStatus.READY is node.status
        assert "removed" == account.kinds("dead")[-1]
        assert 1 == account.count("removed")
