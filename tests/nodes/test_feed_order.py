"""Changes that arrive early, late, twice, out of order, or never."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable
from functools import partial

import pytest

from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.store.pubsub.channels import Channels
from tests.nodes.fleets import (
    CHANGES,
    Account,
    Scene,
    converged,
    nodes_of,
    scene,
    stepped_feed,
)
from tests.nodes.places import until

Tamper = Callable[[bytes], Iterable[bytes]]

# This is longer than any test, so no pulse can have found the change.
NEVER = 60.0


def _has(feed: Feed, name: str, n: int) -> bool:
    node = feed.get(name)
    return node is not None and node.state.get("n") == n


async def _write(at: Scene) -> None:
    """Make a change of every kind."""
    nodes = at.straight.nodes
    await nodes.heartbeats({"n3": {"x": 1}, "n1400": {"x": 2}, "n5": None})
    await nodes.remove("n7")
    await nodes.remove("n8")
    await nodes.register([Node("new"), Node("n8", capacity=9)], ttl=1000.0)
    await nodes.drain("n9")
    await nodes.reserve("n10")


MOMENTS = [
    *(("before", "pulse"), ("after", "pulse")),
    *(("before", "changes"), ("after", "changes"), ("second", "changes")),
]


@pytest.mark.parametrize(("when", "step"), MOMENTS)
async def test_changes_on_the_way_in(when: str, step: str) -> None:
    """Changes before the list, in it, and after it but before the held messages are all kept."""
    async with scene() as at:
        nodes = [Node(f"n{n}", capacity=2) for n in range(1500)]
        await at.straight.nodes.register(nodes, ttl=1000.0)
        feed, engine = stepped_feed(at.hub, pulse_interval=NEVER)

        async def write() -> None:
            await _write(at)
            # The message must arrive before the step continues.
            await feed._replication._channels.barrier(5.0)

        async def second() -> None:
            engine.after.append((step, write))

        if when == "second":
            engine.after.append((step, second))
        else:
            getattr(engine, when).append((step, write))
        async with feed:
            with Account(feed):
                truth = await converged(at, feed)
            assert 1500 == len(truth)
            assert NodeStatus.DRAINING is truth["n9"].status
            assert 1 == truth["n8"].version
            assert 1 == engine.count["pulse"]
            assert 0 == feed.stats.gaps == feed.stats.malformed


async def test_changes_after_the_entry() -> None:
    """No change between the entry and the first message is lost."""
    async with scene() as at:
        for n in range(20):
            async with at.hub.feed() as feed:
                with Account(feed) as account:
                    await at.straight.nodes.register(Node(f"{n}"), ttl=1000.0)
                    await until(partial(feed.get, f"{n}"))
                assert ["added"] == account.kinds(f"{n}")


def _twice(text: bytes) -> Iterable[bytes]:
    return (text, text)


def _reversed() -> Tamper:
    held: list[bytes] = []

    def change(text: bytes) -> Iterable[bytes]:
        held.append(text)
        if len(held) < 3:
            return ()
        delivered = held[::-1]
        held.clear()
        return delivered

    return change


def _dropping(share: float) -> Tamper:
    rng = random.Random(7)
    return lambda text: () if rng.random() < share else (text,)


def _shuffled() -> Tamper:
    """Drop some messages, repeat some, and delay some for a long time."""
    rng = random.Random(8)
    held: list[bytes] = []

    def change(text: bytes) -> Iterable[bytes]:
        delivered: list[bytes] = []
        if rng.random() < 0.8:
            held.append(text)
        while held and rng.random() < 0.6:
            at = rng.randrange(len(held))
            delivered.append(held[at] if rng.random() < 0.3 else held.pop(at))
        return delivered

    return change


TAMPERS: dict[str, Callable[[], Tamper]] = {
    "twice": lambda: _twice,
    "reversed": _reversed,
    "one in three is lost": lambda: _dropping(1 / 3),
    "all are lost": lambda: _dropping(1.0),
    "shuffled": _shuffled,
}


@pytest.mark.parametrize("trouble", TAMPERS)
async def test_messages_that_do_not_come_as_they_were_sent(trouble: str) -> None:
    """The feed ends up equal to the registry, and emits each change once and in order."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        nodes, rng = at.straight.nodes, random.Random(6)
        with Account(feed) as account:
            at.proxy.tamper(TAMPERS[trouble]())
            for n in range(400):
                name = f"{rng.randrange(12)}"
                match rng.randrange(6):
                    case 0 | 1:
                        await nodes.register(Node(name, capacity=rng.randrange(9)), ttl=1000.0)
                    case 2 if name in nodes_of(feed):
                        await at.straight._require_fleet().remove([name])
                    case 3:
                        await nodes.heartbeats({name: None})
                    case _:
                        await nodes.heartbeats({name: {"n": n}})
            await converged(at, feed)
            at.proxy.tamper(None)
            await nodes.register(Node("last"), ttl=1000.0)
            await converged(at, feed)
        assert account.kinds()
        if trouble == "twice":
            assert 0 == feed.stats.gaps
        else:
            assert account.count("synced") >= 1


async def test_a_lost_last_message() -> None:
    """The next pulse notices the loss, within 1.5 s."""
    async with scene() as at, at.hub.feed() as feed:
        await at.straight.nodes.register([Node("a"), Node("b")], ttl=1000.0)
        await until(lambda: feed.get("b"))
        at.proxy.tamper(lambda _: ())
        loop = asyncio.get_running_loop()
        for n in range(3):
            await asyncio.sleep(0.3 * n)
            await at.straight.nodes.heartbeat("a", {"n": n})
            began = loop.time()
            await until(partial(_has, feed, "a", n))
            assert loop.time() - began < 1.5
        at.proxy.tamper(lambda _: ())
        await at.straight.nodes.remove("b")
        began = loop.time()
        await until(lambda: feed.get("b") is None)
        assert loop.time() - began < 1.5


async def test_a_late_old_update_of_a_removed_node() -> None:
    """The node stays removed, even during a gap; a new life of the node is not affected."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        seen: list[bytes] = []
        channels = Channels(at.straight.client)
        listening = channels.channel(CHANGES).subscribe(lambda text: seen.append(text or b""))
        await channels.confirmed(CHANGES)
        seen.clear()
        nodes = at.straight.nodes
        with Account(feed) as account:
            await nodes.register(Node("a"), ttl=1000.0)
            await nodes.heartbeat("a", {"x": 1})
            await nodes.remove("a")
            await until(lambda: ["added", "updated", "removed"] == account.kinds("a"))
            await channels.barrier(5.0)
            old = list(seen)
            assert 3 == len(old)

            async def again() -> None:
                for text in (*old, *old[::-1], old[1]):
                    await at.call("PUBLISH", CHANGES, text)
                await at.hub._channels.barrier(5.0)  # type: ignore[union-attr]

            await again()
            assert feed.get("a") is None
            # With one message missing, later ones are held back and applied afterwards.
            at.proxy.tamper(lambda _: ())
            await nodes.register(Node("b"), ttl=1000.0)
            at.proxy.tamper(None)
            await again()
            await converged(at, feed)
            assert 3 == len(account.kinds("a"))
            assert 1 == await nodes.register(Node("a", capacity=7), ttl=1000.0)
            await again()
            await until(lambda: feed.get("a"))
            await again()
            assert ["added", "updated", "removed", "added"] == account.kinds("a")
            assert 7 == (await converged(at, feed))["a"].capacity
        listening.dispose()
        await channels.close()


@pytest.mark.parametrize("lost", [(), (0,), (1,), (0, 1)])
async def test_removed_and_registered_again(lost: tuple[int, ...]) -> None:
    """The number of the change decides, not the version, which restarts at 1."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        nodes = at.straight.nodes
        await nodes.register(Node("a"), ttl=1000.0)
        for n in range(5):
            await nodes.heartbeat("a", {"n": n})
        await until(lambda: (node := feed.get("a")) and node.version == 6)
        with Account(feed) as account:
            count = iter(range(99))
            at.proxy.tamper(lambda text: () if next(count) in lost else (text,))
            await nodes.remove("a")
            assert 1 == await nodes.register(Node("a", capacity=3), ttl=1000.0)
            await until(lambda: (node := feed.get("a")) and node.version == 1)
            truth = await converged(at, feed)
        assert (1, 3) == (truth["a"].version, truth["a"].capacity)
        assert account.kinds("a") in (["removed", "added"], ["updated"])


async def test_an_update_from_here_and_one_from_there() -> None:
    """The process sees its own write at once, and ignores the copy that comes back."""
    async with scene(pulse_interval=0.2) as at, at.hub.feed() as feed:
        with Account(feed) as account:
            await at.straight.nodes.register(Node("a"), ttl=1000.0)
            for n in range(50):
                # The other process's change may still be on its way, and ours is then ahead of it.
                await at.straight.nodes.heartbeat("a", {"there": n})
                version = await at.hub.nodes.heartbeat("a", {"here": n})
                node = feed.get("a")
                assert node is not None
                assert version <= node.version
            await converged(at, feed)
        assert len(account.kinds("a")) <= 101
