"""An object of one loop refuses use in another loop, and keeps working in its own."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import reactivex

import rxdispatch as rxd
from rxdispatch.home import Home
from rxdispatch.store.client import Client
from rxdispatch.store.url import parse_url

RULE = "must be used in the event loop that it belongs to"
QUICK = rxd.Settings(grace=0.0)


def in_another_loop(use: Callable[[], object]) -> BaseException | None:
    """Call and await *use* in a loop of a new thread; return what it raises."""

    async def main() -> None:
        answer = use()
        if isinstance(answer, Awaitable):
            async with asyncio.timeout(5):
                await answer

    try:
        asyncio.run(main())
    except BaseException as error:
        return error
    return None


def in_a_thread(use: Callable[[], object]) -> BaseException | None:
    """Call *use* in a thread without a loop; return what it raises."""
    try:
        use()
    except BaseException as error:
        return error
    return None


async def refused(use: Callable[[], object]) -> None:
    """Check that *use* is refused in another loop."""
    error = await asyncio.to_thread(in_another_loop, use)
    assert isinstance(error, rxd.ConfigError), error
    assert RULE in str(error)
    assert "asyncio.run_coroutine_threadsafe" in str(error)


async def drain(source: Any) -> None:
    """Iterate to the end."""
    async for _ in source:
        pass


def board_uses(board: rxd.Board[Any], claim: rxd.Claim[Any]) -> list[Callable[[], object]]:
    """Return every way to use a board."""
    return [
        lambda: board.submit(rxd.Task(1, id="forbidden")),
        lambda: board.claim(1),
        lambda: board.renew([claim], 30.0),
        lambda: board.settle([claim.done()]),
        board.counts,
        board.lag,
        lambda: board.get("a"),
        lambda: board.cancel("a"),
        board.pause,
        board.resume,
        board.join,
        lambda: drain(board.dead_letters()),
        board.redrive,
        lambda: rxd.run(board.claims(until="idle")),
        lambda: rxd.run(board.events),
    ]


@pytest.mark.parametrize("url", [None, "memory://"])
async def test_a_board_in_another_loop(url: str | None) -> None:
    """Each method refuses before it sends anything, and the board keeps working in its own loop."""
    async with rxd.connect(url, settings=QUICK) as hub:
        board = hub.board("jobs")
        await board.submit([rxd.Task(1, id="a"), rxd.Task(2, id="b")])
        (claim,) = await board.claim(1)
        for use in board_uses(board, claim):
            await refused(use)
        counts = await board.counts()
        assert (1, 1, 0, 0) == (counts.ready, counts.claimed, counts.done, counts.dead)
        assert await board.get("forbidden") is None
        assert [True] == await board.settle(claim.done())


async def test_a_fleet_in_another_loop() -> None:
    """Registry, feed and channels refuse too, and the feed stays current."""
    async with rxd.connect(settings=QUICK) as hub, hub.feed() as feed:
        await hub.nodes.register(rxd.Node("n", capacity=3))
        registry, client = hub.nodes, hub.client
        slots = await feed.reserve_many(1)
        for use in (
            lambda: registry.register(rxd.Node("forbidden")),
            lambda: registry.heartbeat("n"),
            lambda: feed.fetch("n"),
            lambda: feed.fetch_many(["n"]),
            feed.select,
            lambda: feed.reserve().__aenter__(),
            lambda: feed.reserve_many(1),
            lambda: feed.release(slots[0]),
            feed.close,
            lambda: rxd.run(feed.changes),
            lambda: rxd.run(feed.modes),
            lambda: client.call("ask", "PING"),
            lambda: hub.board("jobs"),
            lambda: hub.nodes,
            hub.feed,
            lambda: hub.actor_ref("a"),
            lambda: hub.__aexit__(None, None, None),
        ):
            await refused(use)
        assert feed.current
        assert ["n"] == [node.id for node in feed.nodes()]
        assert b"PONG" == await client.call("ask", "PING")


async def test_an_actor_in_another_loop() -> None:
    """A message from another loop is refused."""
    heard: list[object] = []

    async def handle(message: object) -> None:
        heard.append(message)

    async with rxd.connect("memory://") as hub:
        actor = hub.actor("a", handle)
        for use in (
            lambda: actor.tell(1),
            lambda: actor.offer(1),
            lambda: actor.ask(1),
            lambda: actor.drain(1),
        ):
            await refused(use)
        await actor.tell(2)
    assert [2] == heard


async def test_an_outbox_in_another_loop(tmp_path: Path) -> None:
    """An event from another loop is refused."""
    sent: list[object] = []

    async def send(events: list[Any]) -> None:
        sent.extend(event.event for event in events)

    async with rxd.Outbox(tmp_path / "outbox", send) as outbox:
        await refused(lambda: outbox.put(1))
        await refused(outbox.flush)
        await outbox.put(2)
        await outbox.flush()
    assert [2] == sent


async def test_use_from_elsewhere_takes_no_connection() -> None:
    """Refused calls take no connection: a pool of one still serves the owner after many of them."""
    settings = rxd.Settings(store=rxd.StoreSettings(connections=1))
    async with rxd.connect(settings=settings) as hub:
        board = hub.board("jobs")
        for _ in range(5):
            await refused(board.counts)
            await refused(lambda: hub.client.call("ask", "PING"))
            assert 0 == (await board.counts()).ready


async def test_the_way_that_the_error_names() -> None:
    """As the error suggests, a thread passes a coroutine to the loop of the hub."""
    loop = asyncio.get_running_loop()
    async with rxd.connect("memory://") as hub:
        board = hub.board("jobs")

        def view() -> rxd.SubmitResult:
            work = board.submit(rxd.Task(1, id="a"))
            return asyncio.run_coroutine_threadsafe(work, loop).result()

        assert ("a",) == (await asyncio.to_thread(view)).accepted


async def test_a_thread_without_a_loop() -> None:
    """Methods that are not coroutines are refused there too."""
    async with rxd.connect("memory://") as hub:
        board = hub.board("jobs")
        await board.counts()
        for use in (lambda: hub.board("other"), board.events.subscribe):
            error = await asyncio.to_thread(in_a_thread, use)
            assert isinstance(error, rxd.ConfigError), error


def test_a_board_without_a_hub_moves_when_its_loop_has_closed() -> None:
    """A script may use one board in several loops, one after the other."""
    board: rxd.Board[Any] = rxd.MemoryBoard("jobs")
    asyncio.run(submit(board))
    assert 1 == asyncio.run(ready(board))


async def submit(board: rxd.Board[Any]) -> None:
    """Submit one task."""
    await board.submit(rxd.Task(1))


async def ready(board: rxd.Board[Any]) -> int:
    """Return the number of ready tasks."""
    return (await board.counts()).ready


def test_a_client_stays() -> None:
    """A client cannot move to another loop, as its connections end with the first."""
    client = Client(parse_url("redis://127.0.0.1:1"), rxd.StoreSettings())
    for expected in (rxd.StoreUnavailableError, rxd.ConfigError):
        with pytest.raises(expected):
            asyncio.run(client.call("ask", "PING"))


def test_a_home_after_a_fork() -> None:
    """A child process may move objects, although the parent's loop is not closed there."""
    loop = asyncio.new_event_loop()
    moves, stays = Home("board", moves=True), Home("client")

    async def use() -> None:
        moves.check()
        stays.check()
        if not (child := os.fork()):
            code = 1
            try:
                asyncio._set_running_loop(None)
                one, two = in_another_loop(moves.check), in_another_loop(stays.check)
                code = 0 if one is None and isinstance(two, rxd.ConfigError) else 2
            finally:
                os._exit(code)
        children.append(child)

    children: list[int] = []
    loop.run_until_complete(use())
    assert 0 == os.waitstatus_to_exitcode(os.waitpid(children[0], 0)[1])
    loop.close()


def test_a_home_is_settled_by_a_loop() -> None:
    """Nothing is refused before the first use in a loop, nor later in the same thread."""
    home = Home("board")
    home.guard(reactivex.just(1)).subscribe()
    loop = asyncio.new_event_loop()

    async def use() -> None:
        home.check()

    loop.run_until_complete(use())
    home.check()
    loop.run_until_complete(use())
    loop.close()
