"""The ACLs in the documentation for watchers and for lists allow enough, and nothing more."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Final, Literal

import pytest
import structlog
from prometheus_client import CollectorRegistry
from redis.exceptions import ResponseError

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.config import StoreSettings
from rxdispatch.store.client import Client
from rxdispatch.store.url import Target
from tests.docs.examples import ROOT
from tests.servers import Kind, any_server

PASSWORD: Final = "CHANGE-ME"

# A worker that may not close its connection waits for a reply on it, which comes within this time.
QUICK: Final = StoreSettings(timeout=1.0, attempt_timeout=0.5, ping_interval=0.1)


def rules_of(user: str) -> list[str]:
    """Return the ACL rules of *user* on the page."""
    page = (ROOT / "docs" / "how-to" / "own-redis.md").read_text("utf-8")
    found = re.search(rf"^user {user} (.*)$", page, re.MULTILINE)
    assert found is not None
    return found[1].split()


@asynccontextmanager
async def admin_of(target: Target) -> AsyncGenerator[Client]:
    """Open a client with all rights, and close it after the block."""
    client = Client(target, StoreSettings())
    await client.open()
    try:
        yield client
    finally:
        await client.close()


async def allow(target: Target, user: str, *rules: str) -> str:
    """Make *user*; return the URL to connect with."""
    async with admin_of(target) as admin:
        await admin.call("allow", "ACL", "SETUSER", user, *rules)
    return target.safe.replace("//", f"//{user}:{PASSWORD}@", 1)


async def fill(target: Target) -> None:
    """Put tasks with every mark on a board."""
    async with rxd.connect(target.safe) as hub:
        board = hub.board("b", remember=60.0)
        await board.submit([rxd.Task(0, id="late", delay=60.0), rxd.Task(0, id="ready")])
        await board.submit(rxd.Task(n, id=f"n{n}", priority=5) for n in range(3))
        done, dead, _ = await board.claim(3, lease=60.0)
        await board.settle([done.done(), dead.dead("spoilt")])
        # A claim of another kind makes the server put this task aside.
        await board.submit(rxd.Task(0, id="other", kind="other"))
        assert [] == await board.claim(9, kinds=["none"])


async def look(target: Target, url: str) -> list[Any]:
    """Do everything that a watcher does; return what it saw."""
    async with (
        rxd.connect(url) as hub,
        rxd.connect(target.safe) as other,
        rxd.Metrics(CollectorRegistry()) as metrics,
    ):
        board = hub.board("b", remember=60.0)
        metrics.watch_board(board)
        await metrics.refresh()
        counts = await board.counts()
        assert {"default": 3, "other": 1} == {
            kind: state.unfinished for kind, state in (await board.kinds()).items()
        }
        assert await board.lag() < 60.0
        assert await board.get("ready") is not None
        assert await board.get("nowhere") is None
        found = await board.get("n2")
        assert found is not None
        reasons = [letter.reason async for letter in board.dead_letters()]
        # Subscribe twice, so that the end of the first subscription is tested too.
        await heard(board, other.board("b", remember=60.0))
        await heard(board, other.board("b", remember=60.0))
        return [counts, found.status, reasons]


async def heard(board: rxd.Board[Any], other: rxd.Board[Any]) -> None:
    """Wait for an event; none comes before the server knows the subscription."""
    came = asyncio.Event()
    with board.events.subscribe(lambda _: came.set()):
        async with asyncio.timeout(5):
            while not came.is_set():
                await other.submit(rxd.Task(0))
                await asyncio.sleep(0.01)


SEEN: Final = [rxd.Counts(1, 2, 1, 1, 1), "CLAIMED", ["spoilt"]]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_watcher_sees_all(kind: Kind) -> None:
    """A watcher sees counts, lag, tasks, dead letters, events and metrics."""
    async with any_server(kind) as target:
        await fill(target)
        url = await allow(target, "watcher", *rules_of("watcher"))
        with structlog.testing.capture_logs() as logs:
            seen = await look(target, url)
    assert SEEN == seen
    assert [] == [log for log in logs if log["event"] != "server_vulnerable"]


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_watcher_changes_nothing(kind: Kind) -> None:
    """A watcher cannot write by the API or by its own scripts, and cannot publish."""
    async with any_server(kind) as target:
        await fill(target)
        url = await allow(target, "watcher", *rules_of("watcher"))
        async with rxd.connect(url) as hub:
            board = hub.board("b", remember=60.0)
            for call in (
                lambda: board.submit(rxd.Task(1)),
                lambda: board.claim(1),
                lambda: board.cancel("late"),
                board.redrive,
                board.pause,
                lambda: hub.nodes.register(rxd.Node("a")),
                lambda: hub.feed().__aenter__(),
                lambda: hub.client.call("try", "PUBLISH", "{rxd:b}:hints", "r"),
                lambda: hub.client.call(
                    "try", "EVAL", "return redis.call('DEL', KEYS[1])", 1, "{rxd:b}:tasks"
                ),
                lambda: hub.client.call("try", "EVAL", "return redis.call('GET', 'other')", 0),
            ):
                with pytest.raises(rxd.ConfigError, match="ACL must allow it to user 'watcher'"):
                    await call()
        async with rxd.connect(target.safe) as hub:
            assert SEEN[0] == await hub.board("b").counts()


@pytest.mark.parametrize("name", [rule for rule in rules_of("watcher") if rule.startswith("+")])
async def test_nothing_of_a_watcher_is_spare(name: str) -> None:
    """If any one of the commands is removed, something fails, or events are lost."""
    if name in ("+info", "+select", "+unsubscribe"):
        pytest.skip("only the version check, other databases and long-lived hubs need it")
    async with any_server("valkey") as target:
        await fill(target)
        url = await allow(target, "watcher", *rules_of("watcher"), f"-{name[1:]}")
        failed = False
        with structlog.testing.capture_logs() as logs:
            try:
                await look(target, url)
            except (rxd.RxDispatchError, TimeoutError):
                failed = True
    assert failed or logs


async def take(target: Target, url: str, side: Literal["left", "right"] = "left") -> list[bytes]:
    """Take, settle and give back entries, also those of a dead worker; return them sorted."""
    async with admin_of(target) as admin:
        await admin.call("push", "RPUSH", "work", "a", "b", "c")
        await admin.call("push", "RPUSH", "work:processing:dead", "d")
        await admin.call("push", "ZADD", "work:processing-workers", 1, "dead")
    found: list[bytes] = []
    given: list[bytes] = []
    over = asyncio.Event()

    async def handle(item: rxd.ListItem) -> None:
        if not given:
            given.append(item.value)
            await item.give_back()
            return
        assert await item.done()
        found.append(item.value)
        if len(found) == 4:
            over.set()

    switch = rxd.KillSwitch()
    stream = rxd.from_redis_list(url, "work", side=side, lease=1.0, settings=QUICK)
    running = asyncio.create_task(
        rxd.run(stream.pipe(switch.gate(), ops.map_async(handle, max_concurrent=1)))
    )
    waiting = asyncio.create_task(over.wait())
    try:
        await asyncio.wait([running, waiting], timeout=3, return_when=asyncio.FIRST_COMPLETED)
        await switch.drain(1.0)
        await running
    finally:
        for task in (waiting, running):
            task.cancel()
        # The worker leaves after the end of the stream, and needs the server for that.
        async with asyncio.timeout(10):
            while len(asyncio.all_tasks()) > 1:
                await asyncio.sleep(0.01)
    async with admin_of(target) as admin:
        assert 0 == await admin.call("count", "LLEN", "work")
        assert 0 == await admin.call("count", "EXISTS", "work:processing:dead")
    return sorted(found)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
@pytest.mark.parametrize("more", [(), ("+client|kill",)])
async def test_a_user_for_lists_takes(kind: Kind, more: tuple[str, ...]) -> None:
    """The user takes every entry from both ends, and the entries of a dead worker."""
    async with any_server(kind) as target:
        url = await allow(target, "lists", *rules_of("lists"), *more)
        with structlog.testing.capture_logs() as logs:
            assert [b"a", b"b", b"c", b"d"] == await take(target, url)
            assert [b"a", b"b", b"c", b"d"] == await take(target, url, "right")
    assert [] == [log for log in logs if log["event"] != "server_vulnerable"]


async def test_a_user_for_lists_reaches_no_other() -> None:
    """The user reaches no other keys, channels or connections."""
    async with any_server("valkey") as target:
        url = await allow(target, "lists", *rules_of("lists"))
        async with rxd.connect(url) as hub:
            for command in (
                ("LRANGE", "workshop", "0", "-1"),
                ("GET", "other"),
                ("PUBLISH", "work", "x"),
                ("CLIENT", "KILL", "ID", "1"),
                ("CLIENT", "LIST"),
            ):
                with pytest.raises(rxd.ConfigError, match="ACL must allow it to user 'lists'"):
                    await hub.client.call("try", *command)


@pytest.mark.parametrize("name", [rule for rule in rules_of("lists") if rule.startswith("+")])
async def test_nothing_of_it_is_spare(name: str) -> None:
    """If any one of the commands is removed, something fails."""
    if name in ("+ping", "+info", "+select"):
        pytest.skip("a hub needs PING; the version check and other databases need the others")
    async with any_server("valkey") as target:
        url = await allow(target, "lists", *rules_of("lists"), f"-{name[1:]}")
        with structlog.testing.capture_logs() as logs:
            failed = False
            try:
                for side in ("left", "right"):
                    await take(target, url, "left" if side == "left" else "right")
            except (rxd.RxDispatchError, ResponseError, AssertionError, TimeoutError):
                failed = True
    assert failed or logs
