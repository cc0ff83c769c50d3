"""Networks that lose, delay and cut connections, and a server that drops slow subscribers."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest
from structlog.testing import capture_logs

from rxdispatch.errors import StoreUnavailableError
from rxdispatch.hub import Hub, connect
from rxdispatch.node import Mode, Node
from rxdispatch.store.url import Target
from tests.nodes.fleets import Account, Scene, converged, scene, stale
from tests.nodes.places import KINDS, until
from tests.servers import Kind

every_kind = pytest.mark.parametrize("kind", KINDS)

TTL = 1000.0


async def _change(hub: Hub, rng: random.Random, count: int) -> None:
    """Make one change to one of *count* nodes."""
    name = f"{rng.randrange(count)}"
    match rng.randrange(8):
        case 0:
            await hub.nodes.register(Node(name, capacity=rng.randrange(9)), ttl=TTL)
        case 1:
            await hub._require_fleet().remove([name])
        case 2:
            await hub.nodes.heartbeats({name: None})
        case _:
            await hub.nodes.heartbeats({name: {"n": rng.random()}})


@asynccontextmanager
async def _changing(at: Scene, seed: int, count: int = 50) -> AsyncGenerator[None]:
    """Make changes over the direct connection without a pause."""
    rng = random.Random(seed)
    await at.straight.nodes.register([Node(f"{n}") for n in range(count)], ttl=TTL)

    async def write() -> None:
        while True:
            await _change(at.straight, rng, count)
            await asyncio.sleep(0.005)

    task = asyncio.create_task(write())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize(("kind", "dead", "age"), [("redis", False, 0.1), ("valkey", True, 0.6)])
async def test_a_black_hole_that_heals(kind: Kind, dead: bool, age: float) -> None:
    """
    After a black hole of 5 s, nothing is stale 1.5 s later, while writes continue.

    If only new connections work, the old Pub/Sub connection is given up half a second after the
    first proof, and changes younger than that may still be missing.
    """
    async with scene(kind) as at, at.hub.feed() as feed:
        with Account(feed) as account:
            async with _changing(at, 1):
                await until(lambda: len(account.changes) > 20)
                at.proxy.blackhole()
                await asyncio.sleep(5.0)
                assert Mode.LOCAL_ONLY is feed.mode
                assert stale(feed, await at.relisted())
                at.proxy.heal(dead=dead)
                await asyncio.sleep(1.5 - age)
            truth = await at.relisted()
            await asyncio.sleep(age)
            assert [] == stale(feed, truth)
            await converged(at, feed)
            await until(lambda: feed.mode is Mode.NORMAL)


async def test_a_black_hole_for_pub_sub_alone() -> None:
    """If replies arrive but messages do not, that is no proof; pulses fetch the changes."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        at.proxy.tamper(lambda _: ())
        with Account(feed):
            async with _changing(at, 2):
                await asyncio.sleep(1.0)
            await converged(at, feed)
        assert feed.stats.catch_ups > 1


@every_kind
async def test_subscribers_that_are_killed_while_others_publish(kind: Kind) -> None:
    """After each kill, the feed fetches what was published meanwhile."""
    async with scene(kind, pulse_interval=0.2) as at, at.hub.feed() as feed:
        with Account(feed):
            async with _changing(at, 3):
                for _ in range(10):
                    await asyncio.sleep(0.1)
                    await at.call("CLIENT", "KILL", "TYPE", "pubsub")
            await converged(at, feed)
            await until(lambda: feed.current)
        assert feed.stats.reconnects >= 1


def _flood(target: Target, count: int) -> None:
    """Send heartbeats of the largest size from another thread, with its own loop."""

    async def run() -> None:
        async with connect(target.safe) as hub:
            for n in range(count):
                await hub.nodes.heartbeat("big", {"n": n, "x": "x" * 60000})

    asyncio.run(run())


@every_kind
async def test_more_than_the_server_keeps_for_a_listener(kind: Kind) -> None:
    """The server drops a feed whose loop is blocked; the feed catches up afterwards."""
    async with scene(kind, pulse_interval=0.2) as at, at.hub.feed() as feed:
        await at.call("CONFIG", "SET", "client-output-buffer-limit", "pubsub 65536 65536 1")
        await at.straight.nodes.register(Node("big"), ttl=TTL)
        await until(lambda: feed.get("big"))
        # This feed has the direct connection, as the proxy would buffer the messages.
        async with at.straight.feed() as direct:
            with Account(direct) as account, Account(feed):
                thread = threading.Thread(target=_flood, args=(at.target, 150))
                thread.start()
                # This blocks the whole loop, like a handler that computes.
                while thread.is_alive():
                    time.sleep(0.05)  # noqa: ASYNC251
                thread.join()
                await until(lambda: (node := direct.get("big")) and node.state.get("n") == 149)
                await converged(at, feed, direct)
            assert account.kinds()
            await until(lambda: direct.stats.reconnects >= 1)


async def test_a_storm_of_resets() -> None:
    """Connections are reset many times a second, at any moment; the feed recovers."""
    async with scene(pulse_interval=0.2, tcp=True) as at, at.hub.feed() as feed:
        rng = random.Random(4)
        with Account(feed) as account:
            async with _changing(at, 4):
                end = asyncio.get_running_loop().time() + 2.5
                while asyncio.get_running_loop().time() < end:
                    await asyncio.sleep(rng.expovariate(20))
                    at.proxy.reset()
            await converged(at, feed)
            await until(lambda: feed.current and feed.mode is Mode.NORMAL)
            await at.straight.nodes.register(Node("after"), ttl=TTL)
            await until(lambda: "added" in account.kinds("after"))


async def test_cuts_in_the_middle_of_a_list() -> None:
    """Entering needs a retry or two, and the feed misses nothing."""
    async with scene(pulse_interval=0.5) as at:
        await at.straight.nodes.register([Node(f"{n}") for n in range(3000)], ttl=TTL)
        rng = random.Random(5)
        for _ in range(5):
            feed = at.hub.feed()
            task = asyncio.create_task(feed.__aenter__())
            for _ in range(3):
                await asyncio.sleep(rng.random() * 0.03)
                at.proxy.cut()
            await task
            try:
                assert 3000 == len(feed.nodes())
            finally:
                await feed.close()


async def test_replies_that_are_lost() -> None:
    """Each call is repeated; a pulse that was executed twice does no harm."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        with Account(feed):
            async with _changing(at, 6):
                for _ in range(8):
                    at.proxy.drop_replies(2, b"EVALSHA")
                    await asyncio.sleep(0.2)
            at.proxy.heal()
            await converged(at, feed)


async def test_a_slow_line() -> None:
    """With a delay of 200 ms to the server, the feed still proves that it is current."""
    async with scene(pulse_interval=1.0) as at, at.hub.feed() as feed:
        at.proxy.delay(0.2)
        modes: list[Mode] = []
        feed.modes.subscribe(modes.append)
        with Account(feed):
            async with _changing(at, 7):
                await asyncio.sleep(2.0)
            await converged(at, feed)
        assert [Mode.NORMAL] == modes


async def test_a_server_that_is_not_there_on_entry() -> None:
    """Entering raises within the limit and leaves nothing behind; a later feed works."""
    async with scene(pulse_interval=0.2) as at:
        await at.straight.nodes.register(Node("a"), ttl=TTL)
        at.proxy.blackhole()
        with capture_logs(), pytest.raises(StoreUnavailableError):
            async with at.hub.feed():
                raise AssertionError
        at.proxy.heal()
        async with at.hub.feed() as feed:
            assert feed.get("a")
