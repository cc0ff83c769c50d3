"""Many feeds, in this process and in others; many subscribers; and what closing leaves behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.node import Node, NodeChange
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.testing import no_leaks
from tests.failures.stepping import Moment, cancelled_at
from tests.nodes.fleets import Account, converged, descriptors, nodes_of, scene
from tests.nodes.member import Orders, state_of
from tests.nodes.places import ground, until

ROOT = Path(__file__).parents[2]
TTL = 1000.0

# -- processes -------------------------------------------------------------------------------


@attrs.define
class Member:
    """A process with a feed."""

    process: Process
    orders: Orders

    async def ask(self) -> dict[str, Any]:
        """Return what its feed knows, whether it still writes, and its errors."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(b"\n")
        reply: dict[str, Any] = json.loads(await self.process.stdout.readline())
        return reply

    async def kill(self) -> None:
        """Kill it with SIGKILL."""
        self.process.kill()
        await self.process.wait()

    async def leave(self) -> int:
        """Let the process exit normally; return its status."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        return await self.process.wait()

    def changes(self) -> list[tuple[str, str, int, str]]:
        """Return the changes that its feed emitted: epoch, node, number, kind."""
        # The last line of a killed process may be incomplete.
        lines = Path(self.orders.journal).read_text().rpartition("\n")[0].splitlines()
        return [tuple(json.loads(line)) for line in lines]


@asynccontextmanager
async def _member(orders: Orders) -> AsyncGenerator[Member]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.nodes.member", json.dumps(attrs.asdict(orders))),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path},
        stdin=PIPE,
        stdout=PIPE,
        limit=2**22,
    )
    try:
        assert process.stdout is not None
        assert b"ready\n" == await process.stdout.readline()
        yield Member(process, orders)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        # The pipes of the process are closed by now; the loop must still process that.
        await asyncio.sleep(0)


def _forward_only(changes: list[tuple[str, str, int, str]]) -> None:
    """Check that numbers grow for each node within an epoch, and that no change is repeated."""
    last: dict[tuple[str, str], int] = {}
    suspect: set[tuple[str, str]] = set()
    for epoch, node, seq, kind in changes:
        key = (epoch, node)
        if kind == "suspect" or key in suspect:
            assert seq >= last.get(key, 0)
        else:
            assert seq > last.get(key, 0), (epoch, node, seq, kind)
        (suspect.add if kind == "suspect" else suspect.discard)(key)
        last[key] = seq


@pytest.mark.parametrize("seed", [1])
async def test_processes_that_write_and_die(tmp_path: Path, seed: int) -> None:
    """Of six processes two are killed and all lose connections; the survivors agree."""
    rng = random.Random(seed)
    async with scene(pulse_interval=0.3) as at, AsyncExitStack() as stack:
        members = await asyncio.gather(
            *(
                stack.enter_async_context(
                    _member(
                        Orders(
                            url=at.proxy.target.safe if n % 2 else at.target.safe,
                            journal=str(tmp_path / f"{n}"),
                            seed=100 * seed + n,
                        )
                    )
                )
                for n in range(6)
            )
        )
        doomed, living = members[:2], members[2:]
        async with at.hub.feed() as feed:
            with Account(feed):
                for member in doomed:
                    for _ in range(4):
                        await asyncio.sleep(rng.random() * 0.15)
                        at.proxy.cut()
                    await member.kill()
                async with asyncio.timeout(60):
                    while not all([(await member.ask())["done"] for member in living]):
                        await asyncio.sleep(rng.random() * 0.2)
                        at.proxy.cut()
                await converged(at, feed)
            truth = json.loads(json.dumps(state_of(feed)))
            async with asyncio.timeout(20):
                while any([(await member.ask())["state"] != truth for member in living]):
                    await asyncio.sleep(0.05)
        assert [[]] * 4 == [(await member.ask())["errors"] for member in living]
        assert [0] * 4 == [await member.leave() for member in living]
        for member in members:
            changes = member.changes()
            assert len(changes) > 20
            _forward_only(changes)


async def test_feeds_in_one_process() -> None:
    """Fifty feeds of one hub share a subscription, and agree whenever nothing is written."""
    async with scene(pulse_interval=0.3) as at, AsyncExitStack() as stack:
        feeds = [await stack.enter_async_context(at.hub.feed()) for _ in range(50)]
        accounts = [Account(feed) for feed in feeds]
        rng = random.Random(4)
        for n in range(60):
            name = f"{rng.randrange(9)}"
            await at.straight.nodes.register(Node(name, capacity=n), ttl=TTL)
            if n % 4 == 3:
                await at.straight.nodes.remove(name)
            if n % 20 == 10:
                at.proxy.cut()
        await converged(at, *feeds)
        for account in accounts:
            account.check()
        async with asyncio.timeout(10):
            # The subscription of the relist ends a moment later.
            while 1 != len((await at.call("CLIENT", "LIST", "TYPE", "pubsub")).splitlines()):
                await asyncio.sleep(0.01)


# -- subscribers -----------------------------------------------------------------------------


async def test_a_subscriber_that_raises() -> None:
    """The subscriber is dropped and gets its error; the feed and the others continue."""
    async with ground(pulse_interval=0.3) as it, it.hub.feed() as feed:
        failed: list[Exception] = []

        def fail(change: NodeChange) -> None:
            raise ValueError(change.kind)

        feed.changes.subscribe(fail, failed.append)
        with Account(feed) as account, capture_logs() as logs:
            for n in range(10):
                await it.other.nodes.register(Node(f"{n}"), ttl=TTL)
            await until(lambda: len(account.changes) >= 10)
            assert feed.current
        assert ["added"] == [str(error) for error in failed]
        assert ["subscriber_failed"] == [log["event"] for log in logs]
        assert 0 == feed.stats.gaps


async def test_a_slow_subscriber() -> None:
    """The slow subscriber gets the newest change of each node, the others every change at once."""
    async with ground(pulse_interval=0.3) as it, it.hub.feed() as feed:
        seen: list[Node] = []
        go = asyncio.Event()

        async def slow(change: NodeChange) -> None:
            await go.wait()
            assert change.node is not None
            seen.append(change.node)

        def name(change: NodeChange) -> str:
            return "" if change.node is None else change.node.id

        with Account(feed) as account:
            consuming = feed.changes.pipe(
                ops.conflate(key=name), ops.map_async(slow, max_concurrent=1)
            ).subscribe()
            await it.other.nodes.register([Node(f"{n}") for n in range(5)], ttl=TTL)
            for n in range(100):
                await it.other.nodes.heartbeats({f"{m}": {"n": n} for m in range(5)})
            await until(lambda: account.count("updated") == 500)
            assert [] == seen
            assert feed.current
            go.set()
            await until(lambda: {node.id: node for node in seen} == nodes_of(feed))
            # The slow subscriber gets the change in progress, and one more for each node.
            assert len(seen) <= 5 + 5
            consuming.dispose()


async def test_unsubscribing_during_an_emission() -> None:
    """Neither leaving nor joining during an emission disturbs the others."""
    async with ground(pulse_interval=0.3) as it, it.hub.feed() as feed:
        late: list[str] = []
        with Account(feed) as account:

            def once(_: NodeChange) -> None:
                subscription.dispose()
                feed.changes.subscribe(lambda change: late.append(change.kind))

            subscription = feed.changes.subscribe(once)
            for n in range(3):
                await it.nodes.register(Node(f"{n}"), ttl=TTL)
            assert ["added"] * 3 == account.kinds()
            assert ["added"] * 2 == late


# -- closing ---------------------------------------------------------------------------------


def _left(feed: Feed) -> list[str]:
    ended: list[str] = []
    feed.changes.subscribe(lambda _: None, on_completed=lambda: ended.append("changes"))
    feed.modes.subscribe(lambda _: None, on_completed=lambda: ended.append("modes"))
    return ended


@pytest.mark.parametrize("trouble", ["none", "gap", "cut", "black hole", "delay"])
async def test_leaving_leaves_nothing(trouble: str) -> None:
    """No tasks, timers, subscriptions, descriptors or connections remain."""
    async with scene(pulse_interval=0.2) as at:
        await at.straight.nodes.register([Node(f"{n}", capacity=9) for n in range(9)], ttl=TTL)
        before = descriptors()
        async with no_leaks():
            async with rxd.connect(at.proxy.target.safe) as hub, hub.feed() as feed:
                ended = _left(feed)
                await feed.reserve_many(5)
                checks = [asyncio.create_task(feed.fetch(f"{n}")) for n in range(20)]
                match trouble:
                    case "gap":
                        at.proxy.tamper(lambda _: ())
                        await at.straight.nodes.heartbeat("1", {"x": 1})
                    case "cut":
                        at.proxy.cut()
                    case "black hole":
                        at.proxy.blackhole()
                        await asyncio.sleep(0.3)
                    case "delay":
                        at.proxy.delay(0.1)
                        await asyncio.sleep(0.3)
                    case _:
                        await asyncio.sleep(0.3)
            await asyncio.gather(*checks)
            assert ["changes", "modes"] == sorted(ended)
            at.proxy.heal()
        await until(lambda: descriptors() <= before)

        async def connections() -> int:
            return len((await at.call("CLIENT", "LIST")).decode().splitlines())

        async with asyncio.timeout(10):
            # Only the connections of the scene's own two hubs remain.
            while await connections() > 2:
                await asyncio.sleep(0.01)


async def test_leaving_the_hub_ends_its_feeds() -> None:
    """Even feeds whose block has not ended are closed with the hub."""
    async with scene(pulse_interval=0.2) as at, no_leaks():
        async with rxd.connect(at.proxy.target.safe) as hub:
            feed = await hub.feed().__aenter__()
            ended = _left(feed)
        assert ["changes", "modes"] == sorted(ended)
        await feed.close()
        with pytest.raises(rxd.ConfigError):
            async with feed.reserve():
                pass


@pytest.mark.parametrize("moment", ["waiting", "answered"])
@pytest.mark.parametrize("nodes", [0, 2500])
async def test_entering_is_cancelled(moment: Moment, nodes: int) -> None:
    """Cancelling at any await leaves nothing behind, and the hub still works."""
    async with ground(pulse_interval=0.3) as it:
        await it.nodes.register([Node(f"{n}") for n in range(nodes)], ttl=TTL)

        async def enter() -> int:
            async with it.hub.feed() as feed:
                return len(feed.nodes())

        for step in range(1, 100):
            async with no_leaks():
                task = cancelled_at(enter(), step, moment)
                await asyncio.wait({task})
                # The connection of the subscription is closed once it is unused.
                await until(lambda: it.hub._channels._task is None)  # type: ignore[union-attr]
            if not task.cancelled():
                assert nodes == task.result()
                break
        else:
            raise AssertionError("entering was cancelled at every step")
        assert step > 2
        assert nodes == await enter()


@pytest.mark.parametrize("delay", [n / 1000 for n in range(0, 40, 2)])
async def test_entering_is_cancelled_after_a_while(delay: float) -> None:
    """The background task of the feed may be anywhere, on the way to the server or back."""
    async with scene(pulse_interval=0.3) as at:
        await at.straight.nodes.register([Node(f"{n}") for n in range(1500)], ttl=TTL)
        at.proxy.delay(0.003)
        async with no_leaks():

            async def enter() -> None:
                async with rxd.connect(at.proxy.target.safe) as hub, hub.feed():
                    await asyncio.sleep(60.0)

            task = asyncio.create_task(enter())
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.wait({task})
            assert task.cancelled()
