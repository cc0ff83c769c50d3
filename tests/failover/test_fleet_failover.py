"""A fleet on a server that takes over with another clock, and without the last writes."""

from __future__ import annotations

import pytest

import rxdispatch as rxd
from tests.failover.shifted_server import ShiftedServer, pair
from tests.failures.fleet import eventually
from tests.servers import Kind

META = b"{rxd}:fleet:meta"


async def epoch(server: ShiftedServer) -> bytes:
    """Return the epoch that the fleet has on *server*."""
    found: bytes = await server.call("HGET", META, "epoch")
    return found


@pytest.mark.parametrize("shift", [-5, 0, 40])
@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_no_node_and_no_slot_lapses(kind: Kind, shift: int) -> None:
    """The first heartbeat begins a new epoch; nodes and slots have the time that they had left."""
    async with pair(kind, shift) as at, rxd.connect(at.url) as hub:
        await hub.nodes.register([rxd.Node(f"{n}", capacity=2) for n in range(3)], ttl=20.0)
        slot = await hub.nodes.reserve("0", lease=20.0)
        before = await epoch(at.old)
        await at.replicate()
        await at.stop_replicating()
        await hub.nodes.register(rxd.Node("lost"), ttl=20.0)
        at.fail_over()
        assert {"0": 3, "lost": None} == await hub.nodes.heartbeats({"0": None, "lost": None})
        assert before != await epoch(at.new)
        assert [True] == await hub.nodes.renew(slot, 20.0)
        async with hub.feed() as feed:
            assert ["0", "1", "2"] == sorted(node.id for node in feed.nodes())
            assert await at.old.call("HGET", META, "server") == await at.new.call(
                "HGET", META, "servers"
            )


async def test_a_feed_lists_the_fleet_of_the_new_server() -> None:
    """A feed drops what was lost, and keeps the other nodes without a doubt."""
    async with pair("valkey", 40) as at, rxd.connect(at.url) as hub, hub.feed() as feed:
        await hub.nodes.register([rxd.Node(f"{n}") for n in range(3)], ttl=30.0)
        await at.replicate()
        await at.stop_replicating()
        await hub.nodes.register(rxd.Node("lost"), ttl=30.0)
        await eventually(lambda: feed.get("lost") is not None)
        at.fail_over()
        await eventually(lambda: feed.get("lost") is None)
        assert {"ready"} == {node.status for node in feed.nodes()}
        assert 3 == len(feed.nodes())
