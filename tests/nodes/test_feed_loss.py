"""A server that has lost its data, or that comes back with older data."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rxdispatch.hub import Hub, connect
from rxdispatch.node import Node
from rxdispatch.store.url import Target
from tests.nodes.fleets import (
    Account,
    Scene,
    converged,
    nodes_of,
    scene,
    scene_at,
    stepped_feed,
)
from tests.nodes.places import KINDS, until
from tests.servers import Kind, valkey_server

every_kind = pytest.mark.parametrize("kind", KINDS)

TTL = 1000.0


@every_kind
async def test_all_is_flushed(kind: Kind) -> None:
    """The fleet becomes empty, then the nodes come again from version 1."""
    async with scene(kind, pulse_interval=0.2) as at, at.hub.feed() as feed:
        await at.straight.nodes.register([Node("a"), Node("b")], ttl=TTL)
        await at.straight.nodes.heartbeat("a", {"x": 1})
        await converged(at, feed)
        with Account(feed) as account:
            await at.call("FLUSHALL")
            await until(lambda: not feed.nodes())
            assert ["removed", "removed"] == account.kinds()
            assert 1 == await at.straight.nodes.register(Node("a"), ttl=TTL)
            await converged(at, feed)
            assert ["removed", "added"] == account.kinds("a")
            await until(lambda: feed.current)


@pytest.mark.parametrize("more", [0, 1, 500])
@every_kind
async def test_flushed_and_written_at_once(kind: Kind, more: int) -> None:
    """New numbers may be below, equal to, or above the earlier ones."""
    async with scene(kind, pulse_interval=0.2) as at, at.hub.feed() as feed:
        await at.straight.nodes.register([Node(f"{n}") for n in range(50)], ttl=TTL)
        await converged(at, feed)
        with Account(feed) as account:
            await at.call("FLUSHALL")
            await at.straight.nodes.register([Node(f"{n}", pool="new") for n in (1, 2)], ttl=TTL)
            for n in range(48 * bool(more) + more):
                await at.straight.nodes.heartbeat("1", {"n": n})
            truth = await converged(at, feed)
        assert {"1", "2"} == truth.keys()
        assert 48 == account.count("removed")
        assert {"new"} == {node.pool for node in feed.nodes()}
        assert 0 == feed.stats.malformed


async def test_flushed_again_and_again() -> None:
    """Under constant writes, the feed recovers each time and never goes backwards."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        with Account(feed) as account:
            for n in range(40):
                await at.straight.nodes.register([Node(f"{n % 7}"), Node("x")], ttl=TTL)
                await at.straight.nodes.heartbeat("x", {"n": n})
                if n % 5 == 4:
                    await at.call("FLUSHALL")
                await asyncio.sleep(0.01 * (n % 4))
            await converged(at, feed)
        assert account.count("synced") > 1
        assert 0 == feed.stats.malformed


@pytest.mark.parametrize("page", [1, 2, 3])
@pytest.mark.parametrize("again", [False, True])
async def test_a_new_epoch_in_the_middle_of_a_list(page: int, again: bool) -> None:
    """The list starts again: it contains no old node and lacks no new one."""
    async with scene() as at:
        old = [Node(f"old{n}") for n in range(2500)]
        await at.straight.nodes.register([Node("kept"), *old], ttl=TTL)
        feed, engine = stepped_feed(at.hub, pulse_interval=0.5)

        async def flush() -> None:
            await at.call("FLUSHALL")
            if again:
                new = [Node(f"new{n}") for n in range(1500)]
                await at.straight.nodes.register([*new, Node("kept", capacity=5)], ttl=TTL)

        async def skip() -> None:
            pass

        engine.after += [("changes", skip)] * (page - 1) + [("changes", flush)]
        async with feed:
            with Account(feed):
                truth = await converged(at, feed)
            assert (1501 if again else 0) == len(truth)
            assert 0 == feed.stats.malformed


async def test_a_new_epoch_while_it_catches_up() -> None:
    """Pages of the old epoch are not mixed with those of the new one."""
    async with scene() as at:
        nodes = at.straight.nodes
        await nodes.register([Node(f"{n}") for n in range(2500)], ttl=TTL)
        feed, engine = stepped_feed(at.hub, pulse_interval=0.5)
        async with feed:
            flushed = asyncio.Event()
            with Account(feed):
                at.proxy.tamper(lambda _: ())
                await nodes.heartbeats({f"{n}": {"x": n} for n in range(2500)})

                async def flush() -> None:
                    await at.call("FLUSHALL")
                    await nodes.register([Node(f"{n}", pool="new") for n in range(1200)], ttl=TTL)
                    flushed.set()

                engine.after.append(("changes", flush))
                await flushed.wait()
                at.proxy.tamper(None)
                truth = await converged(at, feed)
            assert 1200 == len(truth)
            assert 0 == feed.stats.malformed


# -- a server that comes back ----------------------------------------------------------------


async def _fleet(target: Target, count: int) -> None:
    async with connect(target.safe) as hub:
        for n in range(count):
            await hub.nodes.register(Node(f"{n % 20}", capacity=n), ttl=TTL)


@asynccontextmanager
async def _restored(at: Scene, folder: Path) -> AsyncGenerator[Hub]:
    """Run a server with older data, while the proxy still leads to the previous one."""
    async with valkey_server(folder) as server, connect(server.target.safe) as hub:
        yield hub
        at.proxy.upstream = at.target


async def _switched(at: Scene, hub: Hub) -> None:
    at.proxy.upstream = hub.client.target
    at.proxy.cut()


@pytest.mark.parametrize("written", [0, 1, 39, 40, 41, 200])
async def test_a_server_with_older_data(tmp_path: Path, written: int) -> None:
    """The server has the same epoch, and reuses known numbers for other changes."""
    first, second = tmp_path / "first", tmp_path / "second"
    async with valkey_server(first) as server, scene_at(server.target, pulse_interval=0.2) as at:
        await _fleet(server.target, 100)
        async with at.hub.feed() as feed:
            await at.straight.client.call("wait", "PING")
            shutil.copytree(first, second, ignore=shutil.ignore_patterns("*.lock", "*.sock"))
            await at.straight.nodes.register([Node(f"late{n}") for n in range(20)], ttl=TTL)
            await at.straight.nodes.heartbeats({f"{n}": {"lost": True} for n in range(20)})
            await converged(at, feed)
            assert 40 == len(feed.nodes())
            async with _restored(at, second) as hub:
                # The feed has not noticed yet, as only a pulse can.
                for n in range(written):
                    await hub.nodes.register(Node(f"{n % 7}", labels={"n": f"{n}"}), ttl=TTL)
                with Account(feed) as account:
                    await _switched(at, hub)
                    here = Scene(hub.client.target, at.proxy, at.hub, hub)
                    await until(lambda: account.count("synced"))
                    truth = await converged(here, feed)
                    assert 20 == len(truth)
                    assert 20 == account.count("removed")
                    await until(lambda: feed.current)
                    # The feed receives later changes.
                    await hub.nodes.heartbeat("3", {"new": True})
                    await converged(here, feed)


async def test_a_server_that_is_started_again_with_all(tmp_path: Path) -> None:
    """The feed emits nothing but the fact that it has caught up."""
    folder = tmp_path / "data"
    async with valkey_server(folder) as first, scene_at(first.target, pulse_interval=0.2) as at:
        await _fleet(first.target, 40)
        async with at.hub.feed() as feed:
            with Account(feed) as account:
                before = nodes_of(feed)
                await first.stop()
                async with _restored(at, folder) as hub:
                    await _switched(at, hub)
                    await until(lambda: account.count("synced"))
                    await until(lambda: feed.current)
                    assert before.keys() == nodes_of(feed).keys()
                    assert {n.version for n in before.values()} == {n.version for n in feed.nodes()}
                    assert account.kinds().count("added") == account.kinds().count("removed") == 0
