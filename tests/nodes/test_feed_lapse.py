"""Nodes without heartbeats: when they become suspect, and how long they were silent."""

from __future__ import annotations

import asyncio
import time

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.hub import connect
from rxdispatch.node import Node, NodeChange, NodeStatus
from tests.nodes.fleets import scene
from tests.nodes.places import until

TTL = 0.7


async def test_a_lapsed_node_is_never_chosen() -> None:
    """The node is not chosen later than 50 ms after its ttl, whatever the pulse interval is."""
    async with scene(pulse_interval=10.0) as it, it.hub.feed() as feed:
        await it.straight.nodes.register([Node("a")], ttl=TTL)
        await until(lambda: feed.get("a") is not None)
        # The feed received the node before this line, so its ttl ends before *ends*.
        ends = time.monotonic() + TTL + 0.05
        while True:
            asked = time.monotonic()
            current = feed.current
            found = feed.select()
            if current and asked > ends:
                assert found is None
                break
            assert asked < ends + 30.0
            await asyncio.sleep(0.005)


async def test_a_loop_that_stood_still() -> None:
    """While the loop is blocked no timer runs, so the selection itself checks the ttl."""
    async with scene(pulse_interval=30.0) as it, it.hub.feed() as feed:
        await it.straight.nodes.register([Node("a")], ttl=TTL)
        await until(lambda: feed.get("a") is not None)
        time.sleep(TTL + 0.05)  # noqa: ASYNC251 - the loop stands still
        assert feed.current
        assert feed.select() is None
        assert ["suspect"] == [node.status.value for node in feed.nodes()]


async def test_a_suspect_is_emitted_without_a_pulse() -> None:
    """A timer checks the ttls; the feed emits the suspect and looks it up."""
    async with scene(pulse_interval=30.0) as it, it.hub.feed() as feed:
        changes: list[NodeChange] = []
        feed.changes.subscribe(changes.append)
        await it.straight.nodes.register([Node("a"), Node("b")], ttl=TTL)
        await until(lambda: {"suspect"} <= {change.kind for change in changes})
        await until(lambda: all(n.status is NodeStatus.SUSPECT for n in feed.nodes()))
        assert feed.select() is None


async def test_a_node_that_left_and_came_back_during_a_gap() -> None:
    """The feed emits removed, then added, although the version is higher."""
    async with scene() as it, it.hub.feed() as feed:
        await it.straight.nodes.register([Node("a")], ttl=1000)
        await until(lambda: feed.get("a") is not None)
        changes: list[NodeChange] = []
        feed.changes.subscribe(changes.append)
        it.proxy.blackhole()
        await it.straight.nodes.remove("a")
        await it.straight.nodes.register([Node("a", capacity=2)], ttl=1000)
        for n in range(3):
            await it.straight.nodes.heartbeat("a", {"n": n})
        it.proxy.heal(dead=True)
        await until(lambda: "synced" in {change.kind for change in changes})
        await until(lambda: len([c for c in changes if c.kind == "added"]) == 1)
        kinds = [c.kind for c in changes if c.kind in {"added", "removed"}]
        assert ["removed", "added"] == kinds


async def test_silence() -> None:
    """``silence`` counts from the last heartbeat; slots and other changes do not matter."""
    async with scene() as it:
        feed = it.hub.feed()
        feed.keep_heartbeats()
        await it.straight.nodes.register([Node("a", capacity=2)], ttl=1000)
        began = time.monotonic()
        await asyncio.sleep(0.2)
        async with feed:
            known = feed.silence("a")
            assert known is not None
            assert 0.2 <= known <= time.monotonic() - began + 0.1
            async with feed.reserve():
                after = feed.silence("a")
                assert after is not None
                # The estimate of the server's clock moves by less than a millisecond.
                assert after > known / 2
            await it.straight.nodes.heartbeat("a")
            await until(lambda: (feed.silence("a") or 1000.0) < known)
            assert feed.silence("b") is None


async def test_a_feed_must_be_entered() -> None:
    """Before it is entered, every read raises instead of returning an empty fleet."""
    async with connect() as hub:
        feed = hub.feed()
        for read in (
            lambda: feed.get("a"),
            feed.nodes,
            lambda: feed.nodes("gpu"),
            feed.select,
            feed.explain,
        ):
            with pytest.raises(ConfigError, match="feed must be open; use it with 'async with'"):
                read()
        for call in (
            lambda: feed.fetch("a"),
            lambda: feed.fetch_many(["a"]),
            lambda: feed.reserve_many(1),
            lambda: feed.reserve().__aenter__(),
        ):
            with pytest.raises(ConfigError, match="feed must be open; use it with 'async with'"):
                await call()
        assert repr(feed).startswith("<Feed new 0 nodes")
        await hub.nodes.register([Node("a")])
        async with feed:
            assert ["a"] == [node.id for node in feed.nodes()]
        assert feed.get("a") is not None
