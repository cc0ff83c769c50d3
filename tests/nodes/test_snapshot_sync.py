"""``SnapshotSync``: at the start, during an outage, and between two processes of a host."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rxdispatch.config import FeedSettings, Settings
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.hub import Hub, connect
from rxdispatch.node import Mode, Node, NodeStatus
from rxdispatch.nodes.feed.snapshot import Snapshot, StoredRow
from rxdispatch.nodes.feed.snapshot_sync import SnapshotSync
from rxdispatch.nodes.records import pack_record
from rxdispatch.nodes.replica.unsaved import Unsaved
from tests.nodes.replicas import SECOND, made, message, record, touch
from tests.proxy import Proxy
from tests.servers import valkey_server


def settings(path: Path, **others: float) -> Settings:
    """Return settings with a snapshot, and a short pulse interval."""
    return Settings(
        feed=FeedSettings(snapshot_path=path / "fleet.db", pulse_interval=0.2, **others)
    )


@asynccontextmanager
async def proxied(options: Settings) -> AsyncGenerator[tuple[Proxy, Hub, Hub]]:
    """Run a server, a proxy before it, a hub behind the proxy, and a direct hub."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        straight = connect(f"unix://{server.target.path}")
        async with straight, connect(f"unix://{proxy.target.path}", settings=options) as hub:
            yield proxy, hub, straight


async def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


async def saved(path: Path, hub: Hub, nodes: int) -> None:
    """Wait until *nodes* nodes are on disk."""
    fleet = hub._require_fleet()
    assert fleet is not None
    assert hub._target is not None
    reader = Snapshot(path / "fleet.db", f"{hub._target.safe} rxd")
    await reader.open()
    try:
        async with asyncio.timeout(20):
            while (stored := await reader.load()) is None or len(stored.rows) < nodes:
                await asyncio.sleep(0.02)
    finally:
        await reader.close()


async def test_a_start_from_disk(tmp_path: Path) -> None:
    """The feed loads the file and fetches only the changes since then, including removals."""
    async with valkey_server() as server:
        url = f"unix://{server.target.path}"
        async with connect(url, settings=settings(tmp_path)) as hub:
            await hub.nodes.register([Node(f"n{i}") for i in range(50)])
            async with hub.feed():
                await saved(tmp_path, hub, 50)
            await hub.nodes.remove("n0")
            await hub.nodes.heartbeat("n1", {"load": 1})
            await hub.nodes.register(Node("new"))
            async with hub.feed() as feed:
                assert 0 == feed.stats.relists
                assert 50 == len(feed.nodes())
                assert feed.get("n0") is None
                node = feed.get("n1")
                assert node is not None
                assert {"load": 1} == node.state


async def test_a_start_from_disk_of_another_life(tmp_path: Path) -> None:
    """The file is useless after the server has lost its data."""
    async with valkey_server() as server:
        url = f"unix://{server.target.path}"
        async with connect(url, settings=settings(tmp_path)) as hub:
            await hub.nodes.register([Node(f"n{i}") for i in range(5)])
            async with hub.feed():
                await saved(tmp_path, hub, 5)
            await hub.client.call("flush", "FLUSHALL")
            await hub.nodes.register(Node("only"))
            async with hub.feed() as feed:
                assert ["only"] == [node.id for node in feed.nodes()]


async def test_a_start_without_the_server(tmp_path: Path) -> None:
    """The hub opens, the feed has the fleet and names its source; it recovers automatically."""
    options = settings(tmp_path, max_snapshot_age=600.0)
    async with proxied(options) as (proxy, hub, straight):
        await straight.nodes.register([Node(f"n{i}") for i in range(5)])
        async with hub.feed():
            await saved(tmp_path, hub, 5)
        proxy.blackhole()
        proxy.cut()
        url = f"unix://{proxy.target.path}"
        async with connect(url, settings=options) as late, late.feed() as feed:
            assert Mode.L2_ONLY is feed.mode
            assert 5 == len(feed.nodes())
            assert feed.select() is not None
            proxy.heal()
            await until(lambda: feed.mode is Mode.NORMAL)
            await straight.nodes.heartbeat("n0", {"back": True})
            await until(lambda: (n := feed.get("n0")) is not None and n.state == {"back": True})


async def test_a_start_without_server_and_snapshot(tmp_path: Path) -> None:
    """Without data to start from, entering raises an error that says so."""
    async with proxied(settings(tmp_path)) as (proxy, hub, _):
        proxy.blackhole()
        proxy.cut()
        with pytest.raises(StoreUnavailableError, match="read the fleet"):
            async with hub.feed():
                pass
        proxy.heal()


async def test_a_neighbour_that_is_connected(tmp_path: Path) -> None:
    """The writes of a connected process keep the feed of a disconnected one up to date."""
    async with proxied(settings(tmp_path)) as (proxy, hub, straight):
        # The first of two processes of a host is the writer.
        neighbour = Snapshot(tmp_path / "fleet.db", f"{proxy.target.safe} rxd")
        await neighbour.open()
        try:
            assert await neighbour.lead()
            await straight.nodes.register([Node(f"n{i}") for i in range(5)])
            async with hub.feed() as feed, straight.feed() as seen:
                proxy.blackhole()
                await straight.nodes.heartbeat("n0", {"load": 1})
                await straight.nodes.remove("n1")
                rows = [
                    StoredRow(node.id, node.seq, pack_record(node), 30.0) for node in seen.nodes()
                ]
                replica = seen._replica
                epoch, high = replica.epoch.hex(), replica.high
                assert await neighbour.save(
                    epoch, high, [*rows, StoredRow("n1", high, b"", 0.0)], full=True
                )
                await until(lambda: feed.mode is Mode.L2_ONLY)
                await until(lambda: feed.get("n1") is None)
                node = feed.get("n0")
                assert node is not None
                assert {"load": 1} == node.state
                proxy.heal()
                await until(lambda: feed.mode is Mode.NORMAL)
                assert feed.nodes() == seen.nodes()
        finally:
            await neighbour.close()


async def test_a_draining_node_that_was_suspect(tmp_path: Path) -> None:
    """A process that starts from the file takes such a node as suspect, not as ready."""
    replica, _, _ = made()
    replica.follow(message(record("a", 1, status=NodeStatus.DRAINING)))
    replica.suspect_all()
    snapshot = Snapshot(tmp_path / "fleet.db", "test")
    await snapshot.open()
    sync = SnapshotSync(snapshot, replica, Unsaved())
    try:
        sync.save()
        await until(lambda: sync._saving is None)
        late, watcher, _ = made(SECOND)
        await SnapshotSync(snapshot, late, Unsaved()).preload()
        assert NodeStatus.SUSPECT is late.nodes["a"].status
        # A heartbeat without news does not say whether the node is ready, so it is looked up.
        assert late.follow(message(touch("a", 2, 2)))
        assert (NodeStatus.SUSPECT, ["a"]) == (late.nodes["a"].status, watcher.doubts)
    finally:
        await sync.close()


async def test_too_long_without_a_proof(tmp_path: Path) -> None:
    """Every node is suspect and none is chosen; all are ready when the server is back."""
    options = settings(tmp_path, max_snapshot_age=0.5, max_staleness=1.5)
    async with proxied(options) as (proxy, hub, straight):
        await straight.nodes.register([Node(f"n{i}") for i in range(5)])
        async with hub.feed() as feed:
            seen: list[Mode] = []
            feed.modes.subscribe(seen.append)
            proxy.blackhole()
            await until(lambda: all(n.status is NodeStatus.SUSPECT for n in feed.nodes()))
            assert Mode.LOCAL_ONLY is feed.mode
            assert feed.select() is None
            assert 5 == feed.explain().refused["suspect"]
            proxy.heal()
            await until(lambda: feed.mode is Mode.NORMAL and feed.select() is not None)
            await until(lambda: all(n.status is NodeStatus.READY for n in feed.nodes()))
        assert Mode.NORMAL is seen[0]
        assert Mode.NORMAL is seen[-1]
        assert 1 == sum(mode is Mode.NORMAL for mode in seen[1:])
