"""Nodes and feeds as a user's type checker sees them; mypy and pyright check this file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, assert_type

import pytest
from reactivex import Observable

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.protocols import FeedLike
from tests.servers import valkey_server


async def registry(hub: rxd.Hub) -> None:
    """Register and report nodes, as an agent does."""
    node = rxd.Node("a", pool="gpu", capacity=2, labels={"zone": "a"}, state={"load": 0.1})
    assert_type(await hub.nodes.register(node, ttl=30.0), int)
    assert_type(await hub.nodes.register([node]), list[int])
    assert_type(await hub.nodes.heartbeat("a", {"load": 0.2}), int)
    assert_type(await hub.nodes.heartbeats({"a": None}), dict[str, int | None])
    slot = assert_type(await hub.nodes.reserve("a"), str)
    assert_type(await hub.nodes.renew([slot]), list[bool])
    await hub.nodes.release(slot)


async def reading(feed: rxd.Feed) -> None:
    """Read and choose nodes, as a program does."""
    node = feed.get("a")
    assert_type(node, rxd.Node | None)
    assert node is not None
    assert_type(node.state, Mapping[str, Any])
    assert_type(node.labels, Mapping[str, str])
    assert_type(node.status, rxd.NodeStatus)
    assert_type(feed.nodes("gpu"), list[rxd.Node])
    assert_type(await feed.fetch("a"), rxd.Node | None)
    assert_type(await feed.fetch_many(["a"]), dict[str, rxd.Node | None])
    assert_type(feed.select(pool="gpu", where=lambda node: node.room > 1), rxd.Node | None)
    assert_type(feed.explain(labels={"zone": "a"}), rxd.Explanation)
    assert_type(feed.changes, Observable[rxd.NodeChange])
    assert_type(feed.modes, Observable[rxd.Mode])
    assert_type(feed.stats, rxd.FeedStats)
    assert_type(feed.stats.redis, rxd.RedisLatency)
    async with feed.reserve(pool="gpu") as slot:
        assert_type(slot, rxd.Slot)
    assert_type(await feed.reserve_many(2, strategy="spread"), list[rxd.Slot])


async def pipeline(board: rxd.Board[Any], feed: rxd.Feed) -> None:
    """``assign`` accepts a feed, and any object with the same members."""
    anything: FeedLike = feed

    async def work(task: rxd.Task[Any]) -> str:
        assert_type(rxd.current_node(), rxd.Node)
        return task.id

    for one in (anything, feed):
        assigned = ops.claim_each(board)(Observable[rxd.Task[Any]]()).pipe(
            ops.assign(one, pool="gpu", labels={"zone": "a"})
        )
        assert_type(assigned, Observable[rxd.Assignment[Any]])
        assigned.pipe(ops.execute(work), ops.settle(board))


async def test_as_it_is_typed() -> None:
    """The objects have the annotated types."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        await registry(hub)
        async with hub.feed() as feed:
            await hub.nodes.heartbeat("a")
            await reading(feed)
            await pipeline(hub.board("b"), feed)


async def test_the_names_of_criteria_are_checked() -> None:
    """The checkers refuse unknown names, and so does the call itself."""
    async with (
        valkey_server() as server,
        rxd.connect(server.target.safe) as hub,
        hub.feed() as feed,
    ):
        with pytest.raises((rxd.ConfigError, TypeError), match="colour"):
            feed.select(colour="red")  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
