"""Reservations count once and end once, and never exceed the capacity of a node."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from rxdispatch.config import Settings, StoreSettings
from rxdispatch.errors import NoCapacityError, NodeNotFoundError
from rxdispatch.hub import connect
from rxdispatch.node import Node, NodeChange
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.nodes.registry import Registry
from tests.nodes.places import KINDS, Ground, ground
from tests.proxy import Proxy
from tests.servers import Kind

every_kind = pytest.mark.parametrize("kind", KINDS)


@every_kind
async def test_reserving(kind: Kind) -> None:
    """A node gives as many slots as it has; each counts once and is released once."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=2))
        one, two = await it.nodes.reserve("a"), await it.other.nodes.reserve("a")
        assert one != two
        with pytest.raises(NoCapacityError, match="'a'"):
            await it.nodes.reserve("a")
        assert 2 == await it.jobs("a")
        await it.nodes.release(one)
        await it.nodes.release([one, one])
        assert 1 == await it.jobs("a")
        assert [False, True, False] == await it.nodes.renew([one, two, "none"])
        await it.other.nodes.release([two, "none"])
        assert 0 == await it.jobs("a")
        assert [] == await it.call("KEYS", b"*slots") + await it.call("KEYS", b"*leases")


@every_kind
async def test_many_slots_at_once(kind: Kind) -> None:
    """One call may reserve more slots than fit one step."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=600))
        slots = [await it.nodes.reserve("a") for _ in range(600)]
        assert [True] * 600 == await it.nodes.renew(slots)
        await it.nodes.release(iter(slots))
        assert 0 == await it.jobs("a")


@every_kind
async def test_a_lapsed_lease_frees_its_slot(kind: Kind) -> None:
    """A late renewal fails; a renewal in time keeps the slot."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=1), ttl=1000.0)
        slot = await it.nodes.reserve("a", lease=10.0)
        await it.later(9)
        assert [True] == await it.nodes.renew(slot, lease=timedelta(seconds=20))
        await it.later(19)
        with pytest.raises(NoCapacityError):
            await it.nodes.reserve("a")
        await it.later(2)
        assert [False] == await it.nodes.renew(slot)
        assert 0 == await it.jobs("a")
        other = await it.nodes.reserve("a")
        # The first holder does not know this, and releases late.
        await it.nodes.release(slot)
        assert 1 == await it.jobs("a")
        assert [True] == await it.nodes.renew(other)


@every_kind
async def test_a_slot_ends_with_its_node(kind: Kind) -> None:
    """A node that is registered again after its removal starts with no jobs, and counts its own."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=2))
        old = await it.nodes.reserve("a", lease=10.0)
        await it.nodes.remove("a")
        assert [False] == await it.nodes.renew(old)
        await it.nodes.register(Node("a", capacity=2), ttl=1000.0)
        assert [False] == await it.nodes.renew(old)
        new = await it.nodes.reserve("a", lease=1000.0)
        await it.nodes.release(old)
        assert 1 == await it.jobs("a")
        another = await it.nodes.reserve("a", lease=10.0)
        await it.nodes.remove("a")
        await it.nodes.release(another)
        assert [] == await it.ids()
        await it.nodes.register(Node("a", capacity=2), ttl=1000.0)
        await it.later(20)
        assert [False] == await it.nodes.renew(new)
        assert 0 == await it.jobs("a")


@every_kind
async def test_the_same_reservation_again(kind: Kind) -> None:
    """A slot that is held under this reservation id is found, and not counted twice."""
    async with ground(kind) as it:
        await it.nodes.register([Node("a"), Node("b")])
        wanted = [("s1", ["a", "b"]), ("s2", ["a", "b"]), ("s3", ["a", "b"])]
        first, refusing = await it.engine.reserve(wanted, 10.0)
        assert [0, 1, -1] == first
        assert refusing is not None
        again, _ = await it.engine.reserve(wanted, 10.0)
        assert first == again
        assert [1, 1] == [await it.jobs("a"), await it.jobs("b")]


@every_kind
async def test_less_capacity_than_jobs(kind: Kind) -> None:
    """There are no new slots until enough are released; room is never negative."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=3))
        slots = [await it.nodes.reserve("a") for _ in range(3)]
        await it.nodes.register(Node("a", capacity=1))
        for slot in slots[:2]:
            with pytest.raises(NoCapacityError):
                await it.nodes.reserve("a")
            await it.nodes.release(slot)
        with pytest.raises(NoCapacityError):
            await it.nodes.reserve("a")
        await it.nodes.release(slots)
        assert 0 == await it.jobs("a")
        await it.nodes.reserve("a")


# -- replies that are lost -------------------------------------------------------------------


@asynccontextmanager
async def shaky(it: Ground) -> AsyncGenerator[tuple[Proxy, Registry]]:
    """Put a proxy between a hub and the server."""
    settings = Settings(store=StoreSettings(timeout=5.0, attempt_timeout=2.0))
    async with (
        Proxy(it.target) as proxy,
        connect(proxy.target.safe, settings=settings) as hub,
    ):
        yield proxy, hub.nodes


@every_kind
async def test_every_call_may_be_repeated(kind: Kind) -> None:
    """Repeating a call whose reply was lost does not count twice."""
    async with ground(kind) as it, shaky(it) as (proxy, nodes):

        async def lossy(call: Callable[[], Awaitable[Any]]) -> Any:
            proxy.drop_replies(2, b"EVALSHA")
            dropped = proxy.dropped
            result = await call()
            assert dropped + 2 == proxy.dropped
            return result

        assert await lossy(lambda: nodes.register(Node("a", capacity=2, state={"x": 1}))) >= 1
        assert await lossy(lambda: nodes.heartbeat("a", {"x": 2})) >= 2
        slot = await lossy(lambda: nodes.reserve("a"))
        assert 1 == await it.jobs("a")
        assert [True] == await lossy(lambda: nodes.renew(slot))
        before = (await it.fleet())["a"].version
        assert before + 1 == await lossy(lambda: nodes.drain("a"))
        await lossy(lambda: nodes.release(slot))
        assert 0 == await it.jobs("a")
        await lossy(lambda: nodes.remove("a"))
        assert [] == await it.ids()
        with pytest.raises(NodeNotFoundError):
            await lossy(lambda: nodes.reserve("a"))


@every_kind
async def test_jobs_stay_within_bounds(kind: Kind) -> None:
    """In any order of calls, no row has fewer than 0 jobs or more than fit."""
    async with ground(kind) as it, it.published() as messages:
        nodes = [Node(f"{n}", capacity=3) for n in range(3)]
        await it.nodes.register(nodes, ttl=1000.0)
        registries = [it.nodes, it.other.nodes]

        async def worker(n: int) -> None:
            registry, held = registries[n % 2], list[str]()
            for step in range(40):
                node = f"{(n + step) % 3}"
                try:
                    held.append(await registry.reserve(node, lease=5.0))
                except (NoCapacityError, NodeNotFoundError):
                    pass
                if step % 3 == n % 3 and held:
                    await registry.release([held[step % len(held)], held.pop(0)])
                if step % 13 == n:
                    await registry.remove(node)
                    await registry.register(Node(node, capacity=3), ttl=1000.0)
                if step % 17 == n:
                    await it.later(2)
            await registry.release(held)

        await asyncio.gather(*(worker(n) for n in range(6)))
        await it.later(10)
        await it.pulse()
        assert [0] * 3 == [await it.jobs(f"{n}") for n in range(3)]
    rows = [row for message in messages for row in message.rows]
    assert [*range(1, len(rows) + 1)] == [row.seq for row in rows]
    assert {0, 1, 2, 3} >= {row.node.current_jobs for row in rows if row.node is not None}


# -- many processes that place ---------------------------------------------------------------


class Watch:
    """Follows a feed, and records job counts that must never occur."""

    def __init__(self, feed: Feed) -> None:
        self.wrong: list[Node] = []
        self.most = self.seen = 0
        feed.changes.subscribe(self._look)

    def _look(self, change: NodeChange) -> None:
        node = change.node
        if node is not None:
            self.seen += 1
            self.most = max(self.most, node.current_jobs)
            if not 0 <= node.current_jobs <= node.capacity:
                self.wrong.append(node)


async def place(feed: Feed, rounds: int) -> int:
    """Reserve and release, up to 19 slots at a time; return how often it got one."""
    got = 0

    async def one() -> None:
        nonlocal got
        for _ in range(rounds):
            with suppress(NoCapacityError):
                async with feed.reserve():
                    got += 1
                    await asyncio.sleep(0.001)

    await asyncio.gather(*(one() for _ in range(19)))
    return got


@every_kind
async def test_schedulers_at_95_percent(kind: Kind) -> None:
    """Eight schedulers place 152 jobs on 160 slots, and no node ever exceeds its capacity."""
    async with ground(kind) as it, AsyncExitStack() as stack:
        await it.nodes.register([Node(f"{n}", capacity=4) for n in range(40)], ttl=1000.0)
        hubs = [await stack.enter_async_context(connect(it.target.safe)) for _ in range(8)]
        feeds = [await stack.enter_async_context(hub.feed()) for hub in hubs]
        watch = Watch(feeds[0])
        got = await asyncio.gather(*(place(feed, 5) for feed in feeds))
        assert sum(got) > 8 * 19 * 5 * 0.9
        async with asyncio.timeout(10.0):
            while sum(node.current_jobs for node in feeds[0].nodes()):
                await asyncio.sleep(0.01)
        assert ([], 4) == (watch.wrong, watch.most)
        assert {0} == {node.current_jobs for node in (await it.fleet()).values()}


SCHEDULER = """
import asyncio, sys
from rxdispatch import connect
from tests.nodes.test_reservations import place

async def main():
    async with connect(sys.argv[1]) as hub, hub.feed() as feed:
        print(await place(feed, 4))

asyncio.run(main())
"""


async def test_schedulers_in_processes_of_their_own() -> None:
    """No node exceeds its capacity, although the schedulers run in separate processes."""
    async with ground() as it, it.hub.feed() as feed:
        await it.nodes.register([Node(f"{n}", capacity=4) for n in range(40)], ttl=1000.0)
        watch = Watch(feed)
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", SCHEDULER, it.target.safe),
                stdout=asyncio.subprocess.PIPE,
                cwd=Path(__file__).parents[2],
            )
            for _ in range(4)
        ]
        outputs = await asyncio.gather(*(process.communicate() for process in processes))
        assert [0] * 4 == [process.returncode for process in processes]
        assert sum(int(output) for output, _ in outputs) > 4 * 19 * 4 * 0.8
        async with asyncio.timeout(10.0):
            while sum(node.current_jobs for node in feed.nodes()):
                await asyncio.sleep(0.01)
        assert [] == watch.wrong
        assert 0 < watch.most <= 4
        assert watch.seen >= 2 * sum(int(output) for output, _ in outputs) * 0.9
