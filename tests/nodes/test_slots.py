"""``Slots``: reservations are renewed until they are released, and released once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import pytest
from structlog.testing import capture_logs

from rxdispatch.config import FeedSettings, Settings, StoreSettings
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.hub import connect
from rxdispatch.node import Node, Slot
from rxdispatch.nodes.engine import FleetEngine
from rxdispatch.nodes.placement.slots import Slots
from rxdispatch.nodes.records import MessageReader
from tests.nodes.places import KINDS, Ground, ground
from tests.proxy import Proxy
from tests.servers import Kind

every_kind = pytest.mark.parametrize("kind", KINDS)
A, B = Node("a"), Node("b")


@attrs.frozen
class Bench:
    """The slots of a process behind a proxy, and the real fleet."""

    it: Ground
    proxy: Proxy
    slots: Slots
    refused: list[bytes]


@asynccontextmanager
async def bench(kind: Kind = "valkey", limit: float = 5.0) -> AsyncGenerator[Bench]:
    """Run a server with two nodes, of capacity 3 and 1."""
    settings = Settings(store=StoreSettings(timeout=limit, attempt_timeout=limit / 2))
    async with (
        ground(kind) as it,
        Proxy(it.target) as proxy,
        connect(proxy.target.safe, settings=settings) as hub,
    ):
        await it.nodes.register([Node("a", capacity=3), Node("b")], ttl=1000.0)
        refused: list[bytes] = []
        slots = Slots(FleetEngine(hub.client, "rxd", FeedSettings()), refused.append)
        yield Bench(it, proxy, slots, refused)
        proxy.heal()
        await slots.close()


async def soon(it: Ground, node: str, jobs: int) -> None:
    """Wait until *node* has *jobs* jobs."""
    async with asyncio.timeout(10.0):
        while await it.jobs(node) != jobs:
            await asyncio.sleep(0.01)


@every_kind
async def test_many_in_one_call(kind: Kind) -> None:
    """Each slot is on the first of its nodes with room; nodes that refused are reported."""
    async with bench(kind) as one:
        got = await one.slots.take([[B, A]] * 5, 30.0)
        assert ["b", "a", "a", "a", None] == [slot and slot.node.id for slot in got]
        (refused,) = one.refused
        rows = {row.id: row.node for row in MessageReader().message(refused).rows}
        assert {"a": 3, "b": 1} == {name: n.current_jobs for name, n in rows.items() if n}
        assert 4 == one.slots.held
        for slot in got[:2]:
            assert slot is not None
            await one.slots.release(slot)
            await one.slots.release(slot)
        assert (2, 2, 0) == (one.slots.held, await one.it.jobs("a"), await one.it.jobs("b"))


@every_kind
async def test_closing_gives_back(kind: Kind) -> None:
    """Closing releases all held slots in one call."""
    async with bench(kind) as one:
        await one.slots.take([[A]] * 3, 30.0)
        await one.slots.close()
        assert (0, 0) == (one.slots.held, await one.it.jobs("a"))


async def test_renewing() -> None:
    """A slot outlives its lease many times."""
    async with bench() as one:
        (slot,) = await one.slots.take([[A]], 0.3)
        assert slot is not None
        for _ in range(6):
            await asyncio.sleep(0.2)
            await one.it.pulse()
            assert 1 == await one.it.jobs("a")
        assert not slot.lost


async def test_a_shorter_lease_after_a_longer_one() -> None:
    """The short slot is renewed by its own lease."""
    async with bench() as one:
        (long,) = await one.slots.take([[B]], 30.0)
        (short,) = await one.slots.take([[A]], 0.4)
        assert long is not None
        assert short is not None
        for _ in range(5):
            await asyncio.sleep(0.2)
            await one.it.pulse()
            assert 1 == await one.it.jobs("a")
        assert not short.lost


async def test_a_slot_whose_node_has_gone() -> None:
    """The next renewal finds that the slot is lost."""
    async with bench() as one:
        (slot,) = await one.slots.take([[A]], 0.3)
        assert slot is not None
        await one.it.nodes.remove("a")
        with capture_logs() as logs:
            async with asyncio.timeout(5.0):
                while one.slots.held:
                    await asyncio.sleep(0.01)
        assert slot.lost
        assert ["slot_lost"] == [entry["event"] for entry in logs]
        await one.slots.release(slot)


async def test_a_lease_that_passes_while_the_server_is_away() -> None:
    """The slot is lost, as another process may have it."""
    async with bench(limit=0.2) as one:
        (slot,) = await one.slots.take([[A]], 0.6)
        assert slot is not None
        one.proxy.blackhole()
        async with asyncio.timeout(10.0):
            while one.slots.held:
                await asyncio.sleep(0.01)
        assert slot.lost


async def test_the_loser_knows_before_another_has_the_place() -> None:
    """The clock decides, even if the server is silent for longer than a lease."""
    async with bench(limit=30.0) as one:
        (slot,) = await one.slots.take([[B]], 0.6)
        assert slot is not None
        one.proxy.blackhole()
        with capture_logs() as logs:
            while await one.it.jobs("b"):
                assert one.slots.held <= 1
                await asyncio.sleep(0.01)
                await one.it.pulse()
            assert slot.lost
            async with asyncio.timeout(10.0):
                while one.slots.held:
                    await asyncio.sleep(0.01)
        assert ["slot_lost"] == [e["event"] for e in logs if e["event"] == "slot_lost"]


async def test_a_loop_that_stood_still() -> None:
    """A slot is lost as soon as its lease has passed, before any other code runs."""
    async with bench() as one:
        (slot,) = await one.slots.take([[B]], 0.2)
        assert slot is not None
        time.sleep(0.25)  # noqa: ASYNC251 - the loop stands still
        assert slot.lost


async def test_many_slots_while_the_server_is_away() -> None:
    """Batches are renewed in parallel: the last does not wait for the others."""
    async with bench(limit=30.0) as one:
        await one.it.nodes.register([Node("a", capacity=600)], ttl=1000.0)
        kept: list[Slot | None] = []
        for _ in range(3):
            kept += await one.slots.take([[A]] * 200, 0.6)
        one.proxy.blackhole()
        async with asyncio.timeout(10.0):
            while one.slots.held:
                await asyncio.sleep(0.01)
        assert [True] * 600 == [slot is not None and slot.lost for slot in kept]


async def test_a_slot_given_back_in_time_is_not_lost() -> None:
    """Its lease may pass after that, as no code relies on it any more."""
    async with bench() as one:
        (slot,) = await one.slots.take([[B]], 0.2)
        assert slot is not None
        await one.slots.release(slot)
        time.sleep(0.25)  # noqa: ASYNC251 - the loop stands still
        assert not slot.lost


async def test_a_short_outage() -> None:
    """A failed renewal is repeated before the lease has passed."""
    async with bench(limit=0.2) as one:
        (slot,) = await one.slots.take([[A]], 1.5)
        assert slot is not None
        one.proxy.blackhole()
        await asyncio.sleep(0.7)
        one.proxy.heal()
        await asyncio.sleep(1.2)
        await one.it.pulse()
        assert (False, 1) == (slot.lost, await one.it.jobs("a"))


async def test_a_reply_that_is_lost() -> None:
    """The repeated call reserves the slot only once."""
    async with bench() as one:
        one.proxy.drop_replies(2, b"EVALSHA")
        (slot,) = await one.slots.take([[A]], 30.0)
        assert slot is not None
        assert (1, 2) == (await one.it.jobs("a"), one.proxy.dropped)


async def test_a_call_that_is_given_up() -> None:
    """Slots that the call may have reserved are released once the server is reachable."""
    async with bench(limit=0.4) as one:
        one.proxy.drop_replies(1000, b"EVALSHA")
        with pytest.raises(StoreUnavailableError):
            await one.slots.take([[A]], 30.0)
        one.proxy.heal()
        await soon(one.it, "a", 0)
        assert 0 == one.slots.held


async def test_a_call_that_is_cancelled() -> None:
    """Slots that the call may have reserved are released."""
    async with bench() as one:
        gate = one.proxy.hold(b"EVALSHA", replies=True)
        taking = asyncio.create_task(one.slots.take([[A]], 30.0))
        await gate.reached()
        assert 1 == await one.it.jobs("a")
        taking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await taking
        gate.open()
        await soon(one.it, "a", 0)


async def test_giving_back_later() -> None:
    """Many slots are released in one call, and the caller does not wait."""
    async with bench() as one:
        got = await one.slots.take([[A]] * 3, 30.0)
        before = await one.it.pulse()
        for slot in got:
            assert slot is not None
            one.slots.release_later([slot.id])
        assert 0 == one.slots.held
        await soon(one.it, "a", 0)
        assert before.seq + 3 == (await one.it.pulse()).seq
