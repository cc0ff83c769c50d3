"""The Lua scripts on a server that is full, lost its data, restarted, or had its clock set."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import ResponseError

from rxdispatch.config import FeedSettings, Settings, StoreSettings
from rxdispatch.errors import NodeNotFoundError, StoreUnavailableError
from rxdispatch.hub import connect
from rxdispatch.node import Mode, Node, NodeStatus
from tests.nodes.places import KINDS, Ground, ground, ground_at, until
from tests.proxy import Proxy
from tests.servers import Kind, any_server, system_redis, valkey_server

every_kind = pytest.mark.parametrize("kind", KINDS)

# -- a full server ---------------------------------------------------------------------------


@asynccontextmanager
async def full(it: Ground) -> AsyncGenerator[None]:
    """Make the server refuse writes that need memory."""
    await it.call("CONFIG", "SET", "maxmemory-policy", "noeviction")
    await it.call("CONFIG", "SET", "maxmemory", 1)
    try:
        yield
    finally:
        await it.call("CONFIG", "SET", "maxmemory", 0)


async def later(it: Ground, seconds: float) -> None:
    """Let time pass on a full server."""
    await it.call("CONFIG", "SET", "maxmemory", 0)
    await it.later(seconds)
    await it.call("CONFIG", "SET", "maxmemory", 1)


@every_kind
async def test_a_full_server_takes_nothing_new(kind: Kind) -> None:
    """Nodes and reservations are refused with a clear error, and nothing is written in part."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=5), ttl=1000.0)
        async with full(it):
            before = await it.dump()
            with pytest.raises(StoreUnavailableError, match=r"^register.*OOM"):
                await it.nodes.register([Node("a"), Node("b")])
            with pytest.raises(StoreUnavailableError, match=r"^reserve.*OOM"):
                await it.nodes.reserve("a")
            assert before == await it.dump()
        await it.nodes.reserve("a")


@every_kind
async def test_a_full_server_keeps_the_fleet(kind: Kind) -> None:
    """Heartbeats and renewals work, and so do all calls that free memory."""
    async with ground(kind) as it:
        await it.nodes.register([Node("a", capacity=5), Node("b"), Node("c")], ttl=10.0)
        slot, other = await it.nodes.reserve("a"), await it.nodes.reserve("a")
        async with full(it):
            await later(it, 9)
            assert 4 == await it.nodes.heartbeat("a", {"x": 1})
            assert {"b": 2, "none": None} == await it.nodes.heartbeats({"b": None, "none": None})
            assert [True] == await it.nodes.renew(slot, 60.0)
            await it.nodes.release(other)
            await later(it, 2)
            await it.pulse()
            assert ["a", "b"] == await it.ids()
            await it.nodes.drain("b")
            await it.nodes.remove("b")
            assert 1 == await it.jobs("a")


@every_kind
async def test_self_preservation_on_a_full_server(kind: Kind) -> None:
    """The registry can still record that removals have stopped."""
    async with ground(kind) as it:
        await it.nodes.register([Node(f"{n}") for n in range(20)], ttl=10.0)
        async with full(it):
            await later(it, 11)
            await it.pulse()
            assert 20 == len(await it.ids())
            await later(it, 121)
            await it.pulse()
            assert [] == await it.ids()


@every_kind
async def test_a_feed_on_a_full_server(kind: Kind) -> None:
    """The feed keeps its nodes, and receives the changes that are still possible."""
    async with ground(kind, pulse_interval=0.1) as it, it.hub.feed() as feed:
        await it.nodes.register([Node("a"), Node("b")])
        async with full(it):
            with pytest.raises(StoreUnavailableError, match="OOM"):
                async with feed.reserve():
                    pass
            await it.other.nodes.remove("b")
            await until(lambda: feed.get("b") is None)
            proofs = feed.stats.redis.count
            await until(lambda: feed.stats.redis.count > proofs + 3)
            assert feed.current
            assert feed.get("a") is not None
        async with feed.reserve() as slot:
            assert "a" == slot.node.id


async def test_a_read_only_replica() -> None:
    """Each call fails within its limit, and reports that nothing was done."""
    with system_redis() as url:
        port = url.rpartition(":")[2]
        options = {"replicaof": f"127.0.0.1 {port}"}
        async with connect(url) as main:
            await main.client.call("test", "CONFIG", "SET", "repl-diskless-sync-delay", "0")
            await main.nodes.register(Node("a"), ttl=1000.0)
            with system_redis(options=options) as replica:
                hasty = Settings(store=StoreSettings(timeout=0.5))
                async with connect(replica, settings=hasty) as hub:
                    async with asyncio.timeout(20.0):
                        while not await hub.client.call("test", "EXISTS", "{rxd}:fleet:meta"):
                            await asyncio.sleep(0.05)
                    for call in (hub.nodes.heartbeat, hub.nodes.drain, hub.nodes.reserve):
                        with pytest.raises(StoreUnavailableError) as caught:
                            await call("a")
                        assert not caught.value.maybe_executed


async def test_a_feed_whose_server_becomes_a_replica() -> None:
    """The feed keeps the fleet, reports that it has no proof, and recovers later."""
    with system_redis() as url:
        settings = Settings(feed=FeedSettings(pulse_interval=0.1))
        async with connect(url, settings=settings) as hub, hub.feed() as feed:
            await hub.nodes.register(Node("a"), ttl=1000.0)
            # The server becomes a replica of an absent one, and so keeps its data.
            await hub.client.call("test", "REPLICAOF", "127.0.0.1", "1")
            await until(lambda: feed.mode is Mode.LOCAL_ONLY)
            assert not feed.current
            node = feed.get("a")
            assert node is not None
            assert NodeStatus.READY is node.status
            await hub.client.call("test", "REPLICAOF", "NO", "ONE")
            await until(lambda: feed.mode is Mode.NORMAL)
            await hub.nodes.heartbeat("a", {"x": 1})
            async with asyncio.timeout(10.0):
                while (node := feed.get("a")) is None or node.state != {"x": 1}:
                    await asyncio.sleep(0.01)


# -- clocks ----------------------------------------------------------------------------------


async def meta(it: Ground, field: str) -> int:
    """Return a number from the meta data of the fleet."""
    return int(await it.call("HGET", it.key("meta"), field))


async def set_back(it: Ground, seconds: float) -> None:
    """Make it look as if the server's clock was *seconds* ahead at the last write."""
    ahead = round(seconds * 1_000_000)
    raw, skew = await meta(it, "raw") + ahead, await meta(it, "skew") - ahead
    await it.call("HSET", it.key("meta"), "raw", raw, "skew", skew)


@every_kind
async def test_a_server_whose_time_was_set_back(kind: Kind) -> None:
    """The fleet's time does not go back: no node lapses early, or an hour late."""
    async with ground(kind) as it:
        await it.nodes.register([Node("a", capacity=3), Node("b")], ttl=20.0)
        slot = await it.nodes.reserve("a", lease=10.0)
        await set_back(it, 3600.0)
        await it.pulse()
        assert ["a", "b"] == await it.ids()
        assert [True] == await it.nodes.renew(slot, 10.0)
        await it.later(15)
        await it.pulse()
        assert 0 == await it.jobs("a")
        assert ["a", "b"] == await it.ids()
        await it.later(6)
        await it.pulse()
        assert [] == await it.ids()


@every_kind
async def test_time_goes_on_after_it_was_set_back(kind: Kind) -> None:
    """Pulses alone let the fleet's time go on, even if nothing is written."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a"), ttl=1.0)
        await set_back(it, 3600.0)
        async with asyncio.timeout(10.0):
            while await it.ids():
                await it.pulse()
                await asyncio.sleep(0.1)


async def restarted(it: Ground, away: float) -> None:
    """Change the data as if its server had ended *away* seconds ago."""
    raw = await meta(it, "raw") - round(away * 1_000_000)
    skew = await meta(it, "skew") + round(away * 1_000_000)
    # The deadlines stay the same, as the fleet's time at the last write does not change.
    await it.call("HSET", it.key("meta"), "server", "another", "raw", raw, "skew", skew)


@every_kind
@pytest.mark.parametrize("first", ["pulse", "heartbeat"])
async def test_the_clock_stops_while_the_server_is_away(kind: Kind, first: str) -> None:
    """The clock stops for exactly the time that the server was down, whichever call is first."""
    async with ground(kind) as it:
        await it.nodes.register([Node("a"), Node("b")], ttl=20.0)
        before = await it.pulse()
        skew = await meta(it, "skew")
        await restarted(it, 1000.0)
        after = await it.pulse() if first == "pulse" else None
        await it.nodes.heartbeat("b")
        after = after or await it.pulse()
        assert before.epoch != after.epoch
        # The test itself may take a few seconds.
        assert -5_000_000 < await meta(it, "skew") - skew <= 0
        assert after.epoch == (await it.pulse()).epoch
        assert ["a", "b"] == await it.ids()
        await it.later(15)
        await it.pulse()
        assert ["a", "b"] == await it.ids()
        await it.later(6)
        await it.pulse()
        assert [] == await it.ids()


@every_kind
async def test_a_read_stores_no_epoch(kind: Kind) -> None:
    """After a restart, a read returns no epoch until a script that writes has stored one."""
    async with ground(kind) as it:
        await it.nodes.register([Node(f"{n}") for n in range(5)], ttl=20.0)
        before = await it.pulse()
        await restarted(it, 1000.0)
        assert {b""} == {(await it.engine.changes(0, 2)).position.epoch for _ in range(2)}
        assert b"" == (await it.engine.lookup(["1"])).position.epoch
        after = await it.pulse()
        assert after.epoch not in {b"", before.epoch}
        page, message = await it.changes(0, 2)
        assert (after.epoch, True) == (page.position.epoch, page.more)
        assert ["0", "1"] == [row.id for row in message.rows]
        assert all(row.ttl > 10.0 for row in message.rows)


async def test_a_server_that_is_started_again(tmp_path: Path) -> None:
    """No heartbeat could arrive while the server was down, so no node is removed."""
    async with (
        valkey_server(tmp_path / "data") as first,
        Proxy(first.target) as proxy,
        ground_at(proxy.target, pulse_interval=0.1) as it,
        it.hub.feed() as feed,
    ):
        await it.nodes.register([Node(f"{n}") for n in range(5)], ttl=3.0)
        changes: list[Any] = []
        feed.changes.subscribe(changes.append)
        old = await it.pulse()
        await first.stop()
        proxy.cut()
        await asyncio.sleep(4.0)
        async with valkey_server(tmp_path / "data") as second:
            proxy.upstream = second.target
            await until(lambda: any(change.kind == "synced" for change in changes))
            assert 5 == len(feed.nodes())
            assert [f"{n}" for n in range(5)] == await it.ids()
            assert old.epoch != (await it.pulse()).epoch
            assert {"0": 2, "1": 2} == await it.nodes.heartbeats({"0": None, "1": None})
            # A node that stays silent is removed as usual.
            await until(lambda: {node.id for node in feed.nodes()} <= {"0", "1"})
            kinds = {change.kind for change in changes if change.kind != "synced"}
            assert {"suspect", "removed", "updated"} >= kinds


# -- a server that loses data ----------------------------------------------------------------


@every_kind
async def test_a_server_that_loses_its_data(kind: Kind) -> None:
    """A new epoch begins; earlier slots are lost and count on no node."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=2))
        slot = await it.nodes.reserve("a")
        before = await it.pulse()
        await it.call("FLUSHALL")
        with pytest.raises(NodeNotFoundError):
            await it.nodes.heartbeat("a")
        assert 1 == await it.nodes.register(Node("a", capacity=2))
        await it.nodes.reserve("a")
        assert [False] == await it.nodes.renew(slot)
        await it.nodes.release(slot)
        assert 1 == await it.jobs("a")
        after = await it.pulse()
        assert before.epoch != after.epoch
        assert 2 == after.seq


@every_kind
async def test_scripts_that_are_flushed(kind: Kind) -> None:
    """The client sends the scripts again."""
    async with ground(kind) as it:
        for n in range(3):
            await it.call("SCRIPT", "FLUSH")
            await it.nodes.register(Node(f"{n}"))
            await it.call("SCRIPT", "FLUSH")
            await it.nodes.heartbeat(f"{n}")
        assert ["0", "1", "2"] == await it.ids()


@every_kind
async def test_keys_of_another_type(kind: Kind) -> None:
    """The error names the problem."""
    async with ground(kind) as it:
        await it.call("SET", it.key("nodes"), "x")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await it.nodes.register(Node("a"))


@every_kind
async def test_without_the_right_to_info(kind: Kind) -> None:
    """Everything works, except that a restart is not noticed."""
    async with any_server(kind) as target:
        rule = ("on", ">secret", "~*", "&*", "+@all", "-info")
        async with connect(target.safe) as admin:
            await admin.client.call("test", "ACL", "SETUSER", "bob", *rule)
        assert target.path or target.host
        url = (
            f"unix://bob:secret@{target.path}"
            if target.scheme == "unix"
            else f"redis://bob:secret@{target.host}:{target.port}"
        )
        async with connect(url) as hub, hub.feed() as feed:
            await hub.nodes.register(Node("a"))
            assert feed.get("a") is not None
            async with feed.reserve() as slot:
                assert "a" == slot.node.id


# -- pages and pieces ------------------------------------------------------------------------


@every_kind
async def test_pages(kind: Kind) -> None:
    """Pages come in the order of numbers, limited by rows or size, with each node once."""
    async with ground(kind) as it:
        await it.nodes.register([Node(f"{n:02}") for n in range(25)])
        await it.nodes.heartbeats({f"{n:02}": {"x": "x" * 65000} for n in range(0, 25, 2)})
        await it.nodes.remove("01")
        for limit in (1, 2, 7, 1000):
            after, rows, more = 0, list[Any](), True
            while more:
                page, message = await it.changes(after, limit)
                rows += message.rows
                assert len(message.rows) <= limit
                after, more = message.last or after, page.more
            assert sorted(row.seq for row in rows) == [row.seq for row in rows]
            assert 25 == len({row.id for row in rows}) == len(rows)
            assert ("01", None) == (rows[-1].id, rows[-1].node)


@every_kind
async def test_a_large_step_is_published_in_pieces(kind: Kind) -> None:
    """Each message is complete and in order, and none is large."""
    async with ground(kind) as it:
        nodes = [Node(f"{n}", state={"x": "x" * 60000}) for n in range(30)]
        async with it.published() as messages:
            await it.nodes.register(nodes)
        assert len(messages) > 3
        first = 1
        for message in messages:
            assert first == message.first
            assert [*range(first, first + message.length)] == [row.seq for row in message.rows]
            first += message.length
        assert 31 == first


@every_kind
async def test_nothing_is_left_behind(kind: Kind) -> None:
    """After all nodes are gone and their tombstones purged, one small hash remains."""
    async with ground(kind, tombstone_ttl=60.0) as it:
        await it.nodes.register([Node(f"{n}", capacity=2) for n in range(9)], ttl=10.0)
        for n in range(9):
            await it.nodes.reserve(f"{n}", lease=5.0 + 20 * (n % 2))
        await it.nodes.remove("3")
        for _ in range(3):
            await it.later(61)
            await it.pulse()
        assert [it.key("meta")] == await it.call("KEYS", "*")
        assert 9 >= await it.call("HLEN", it.key("meta"))
