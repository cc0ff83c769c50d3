"""The ACL in the documentation allows what boards and a fleet do, and nothing more."""

from __future__ import annotations

import asyncio
import re

import pytest
import structlog
from redis.exceptions import ResponseError

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.config import StoreSettings
from rxdispatch.store.client import Client
from rxdispatch.store.url import Target
from tests.docs.examples import ROOT
from tests.servers import Kind, any_server

PASSWORD = "CHANGE-ME"


def _rules() -> list[str]:
    page = (ROOT / "docs" / "how-to" / "own-redis.md").read_text("utf-8")
    found = re.search(r"^user worker (.*)$", page, re.MULTILINE)
    assert found is not None
    return found[1].split()


def _as_worker(target: Target) -> str:
    return target.safe.replace("//", f"//worker:{PASSWORD}@", 1)


async def _allow(target: Target, rules: list[str]) -> None:
    admin = Client(target, StoreSettings())
    await admin.open()
    await admin.call("allow", "ACL", "SETUSER", "worker", *rules)
    await admin.close()


def _payload(task: rxd.Task[int]) -> int:
    return task.payload


async def _exercise(board: rxd.Board[int]) -> None:
    """Call methods until each command that boards use was sent."""
    await board.submit(rxd.Task(n, id=f"n{n}", priority=n % 3) for n in range(8))
    await board.submit(rxd.Task(8, id="late", delay=0.01, ttl=60.0))
    await board.submit(rxd.Task(9, id="expired", delay=60.0, ttl=0.001))
    claims = await board.claim(4, lease=5.0)
    assert [] == await board.renew(claims, 5.0)
    a, b, c, d = claims
    assert [True] * 4 == await board.settle([a.done(), b.retry("x"), c.dead("y"), d.release(0.01)])
    assert a.task.id in (await board.submit(rxd.Task(0, id=a.task.id))).duplicates
    assert 1 == len(await board.claim(1, ids=["n0", "n1", "n2"], lease=0.001))
    await asyncio.sleep(0.01)
    assert [True] == await board.cancel("n7")
    await board.pause()
    await board.resume()
    await board.submit([rxd.Task(0, id="x", kind="x"), rxd.Task(0, id="y", kind="y")])
    assert ["y"] == [claim.task.id for claim in await board.claim(1, kinds=["y"], lease=0.001)]
    assert ["x"] == [claim.task.id for claim in await board.claim(1, kinds=["x"], lease=0.001)]
    await board.join(kinds=["none"])
    assert await board.get("n7")
    assert await board.get("n0")
    await board.redrive(["n7"])
    await rxd.run(
        board.claims(until="joined", lease=1.0).pipe(ops.execute(_payload), ops.settle(board))
    )
    await board.join(kinds=["default"])
    assert {"expired", "y"} == {letter.reason async for letter in board.dead_letters()}
    assert 2 == await board.redrive()


async def _exercise_fleet(hub: rxd.Hub) -> None:
    """Do everything that a registry and a feed do, until a tombstone is purged."""
    nodes = hub.nodes
    async with hub.feed() as feed:
        came: set[tuple[str, str]] = set()
        lapsed = asyncio.Event()

        def note(change: rxd.NodeChange) -> None:
            if change.node is not None:
                came.add((change.kind, change.node.id))
            if ("removed", "late") in came:
                lapsed.set()

        feed.changes.subscribe(note)
        await nodes.register([rxd.Node("a", capacity=2), rxd.Node("b")])
        await nodes.register(rxd.Node("late"), ttl=0.001)
        await nodes.heartbeats({"a": {"load": 1}, "b": None})
        slot = await nodes.reserve("a")
        assert [True] == await nodes.renew(slot)
        await nodes.release(slot)
        async with feed.reserve(pool="default"):
            pass
        await nodes.drain("b")
        await nodes.remove("b")
        async with asyncio.timeout(5):
            await lapsed.wait()
        assert feed.current
        assert ["a"] == [node.id for node in feed.nodes()]


# Tombstones are purged at once, so that this code runs too.
SETTINGS = rxd.Settings(feed=rxd.FeedSettings(pulse_interval=0.5, tombstone_ttl=0.001))


async def _live(target: Target) -> set[str]:
    """Connect as that user, do everything while listening, and return the events."""
    async with rxd.connect(_as_worker(target), settings=SETTINGS) as hub:
        board: rxd.Board[int] = hub.board("b", remember=60.0, dead_limit=10)
        kinds: set[str] = set()
        redriven = asyncio.Event()

        def note(event: rxd.TaskEvent) -> None:
            kinds.add(event.kind)
            # This task is redriven last.
            if event.kind == "redriven" and event.task_id == "expired":
                redriven.set()

        with board.events.subscribe(note):
            await _exercise(board)
            async with asyncio.timeout(5):
                await redriven.wait()
        await _exercise_fleet(hub)
    return kinds


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_it_is_enough(kind: Kind) -> None:
    """Every method works, and so do events, hints and changes of nodes."""
    async with any_server(kind) as target:
        await _allow(target, _rules())
        with structlog.testing.capture_logs() as logs:
            kinds = await _live(target)
    assert {"claimed", "done", "dead", "crashed", "retried", "released", "redriven"} <= kinds
    # Distributions patch old versions without changing their number.
    assert [] == [log for log in logs if log["event"] != "server_vulnerable"]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_it_is_not_more(kind: Kind) -> None:
    """The server refuses other keys, other channels and other commands."""
    async with any_server(kind) as target:
        await _allow(target, _rules())
        async with rxd.connect(_as_worker(target)) as hub:
            for command in (
                ("GET", "other"),
                ("GET", "{rxd}:other"),
                ("PUBLISH", "other", "x"),
                ("PUBLISH", "{rxd}:other", "x"),
                ("FLUSHALL",),
            ):
                with pytest.raises(rxd.ConfigError, match="ACL must allow it to user 'worker'"):
                    await hub.client.call("try", *command)


@pytest.mark.parametrize("name", [rule for rule in _rules() if rule.startswith("+")])
async def test_nothing_of_it_is_spare(name: str) -> None:
    """If any one of the commands is removed, something fails, or Pub/Sub messages are lost."""
    if name in ("+info", "+select"):
        pytest.skip("without INFO no version is checked; only databases other than 0 need SELECT")
    async with any_server("valkey") as target:
        await _allow(target, [*_rules(), f"-{name[1:]}"])
        failed = False
        with structlog.testing.capture_logs() as logs:
            try:
                await _live(target)
            except (ResponseError, rxd.RxDispatchError, TimeoutError):
                failed = True
    assert failed or [log for log in logs if log["event"] in ("channels_lost", "feed_behind")]
