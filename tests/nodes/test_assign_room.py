"""``assign`` when many claims compete for the last slots, and when the feed closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from rxdispatch.errors import ConfigError
from rxdispatch.hub import Hub, connect
from rxdispatch.node import Node
from rxdispatch.operators.tasks._assign import assign
from rxdispatch.operators.tasks._assignment import Assignment
from rxdispatch.task import Task
from tests.servers import valkey_server


@asynccontextmanager
async def fleet(nodes: int) -> AsyncGenerator[Hub]:
    """Run a server with *nodes* nodes of one slot each."""
    async with valkey_server() as server, connect(f"unix://{server.target.path}") as hub:
        await hub.nodes.register([Node(f"n{i}") for i in range(nodes)], ttl=600.0)
        yield hub


async def until(condition: Callable[[], object]) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(20):
        while not condition():
            await asyncio.sleep(0.01)


async def test_as_many_slots_as_there_is_room_for() -> None:
    """All slots are assigned, even if several claims try the same node first."""
    async with fleet(30) as hub, hub.feed() as feed:
        for _ in range(5):
            slots = await feed.reserve_many(30)
            assert 30 == len({slot.node.id for slot in slots})
            assert [] == await feed.reserve_many(1)
            for slot in slots:
                await feed.release(slot)


async def test_no_claim_waits_beside_an_idle_node() -> None:
    """Every node gets a claim, without any message from the fleet."""
    async with fleet(30) as hub, hub.feed() as feed:
        board = hub.board("jobs")
        await board.submit([Task(n) for n in range(30)])
        made: list[Assignment[Any]] = []
        with board.claims().pipe(assign(feed)).subscribe(made.append):
            await until(lambda: len(made) == 30)
        assert 30 == len({each.node.id for each in made})
        await board.settle([each.claim.done() for each in made])


async def test_the_feed_is_closed_while_claims_wait() -> None:
    """The stream ends with the reason instead of waiting for room forever."""
    async with (
        fleet(1) as hub,
        connect(f"unix://{hub._target.path if hub._target else ''}") as other,
    ):
        slot = await other.nodes.reserve("n0", lease=600.0)
        board = hub.board("jobs")
        await board.submit(Task(0))
        async with hub.feed() as feed:
            ended: list[Exception] = []
            with board.claims().pipe(assign(feed)).subscribe(on_error=ended.append):
                await until(lambda: feed.explain().refused["full"] == 1)
                await asyncio.sleep(0.2)
                await feed.close()
                await until(lambda: ended)
        assert isinstance(ended[0], ConfigError)
        await other.nodes.release(slot)
