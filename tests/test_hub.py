"""``connect()`` and ``Hub``: the boards of a hub, and their lifetime."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rxdispatch.boards.base import Board
from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.boards.redis.board import RedisBoard
from rxdispatch.claim import Claim
from rxdispatch.config import Settings, StoreSettings
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.hub import Hub, connect
from rxdispatch.node import Node
from rxdispatch.task import Task
from tests.servers import system_redis, valkey_server


def board_of(hub: Hub, **options: Any) -> Board[Any]:
    """Return a handle on the one board of these tests."""
    return hub.board("b", **options)


BAD: list[tuple[dict[str, Any], str]] = [
    ({"url": ""}, "url must"),
    ({"url": 5}, "url must"),
    ({"url": "localhost"}, "url must"),
    ({"url": "http://localhost"}, "url must"),
    ({"url": "memory://", "data_dir": "x"}, "data_dir must be given without a url"),
    ({"namespace": ""}, "namespace must be a str of 1 to 200 characters, got ''"),
    ({"namespace": 5}, "namespace must be a str of 1 to 200 characters, got 5"),
    ({"namespace": "x" * 201}, "namespace must be a str of 1 to 200 characters"),
    *(
        (
            {"namespace": f"a{c}b"},
            "namespace must have no braces, spaces, control characters or any",
        )
        for c in "{}*?[]^\\ \n\r\t\x00\x7f\x85\xa0\u2028"
    ),
    ({"namespace": "\ud800"}, "namespace must be encodable as UTF-8"),
    ({"settings": {"grace": 1}}, "settings must be a Settings object, got {'grace': 1}"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda value: str(value)[:40])
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    """``connect`` refuses bad arguments immediately, not when the hub is entered."""
    with pytest.raises(ConfigError) as caught:
        connect(**options)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize("url", ["redis+sentinel://h/m", "redis+cluster://h"])
def test_what_is_not_yet_there(url: str) -> None:
    """The error says that the scheme is not supported yet."""
    with pytest.raises(ConfigError, match="not yet"):
        connect(url)


async def test_boards_need_an_open_hub() -> None:
    """A hub has no boards before or after its block."""
    hub = connect("memory://")
    with pytest.raises(ConfigError, match=r"^hub must be open"):
        hub.board("b")
    async with hub:
        board = board_of(hub)
        assert isinstance(board, MemoryBoard)
    with pytest.raises(ConfigError, match=r"^hub must be open"):
        hub.board("b")
    with pytest.raises(ConfigError, match=r"^hub must be entered once"):
        async with hub:
            pass


async def test_in_memory_there_is_no_server() -> None:
    """Handles of one hub share a board, two hubs share nothing, and there is no client."""
    async with connect("memory://") as one, connect("memory://") as two:
        first = board_of(one)
        await first.submit(Task(0, id="a"))
        second = board_of(one)
        other = board_of(two)
        assert 1 == (await second.counts()).ready
        assert 0 == (await other.counts()).ready
        with pytest.raises(ConfigError, match=r"^hub must be open and connected to a server"):
            _ = one.client


async def test_the_environment_names_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """``$RXDISPATCH_URL`` is used only without a URL and a data_dir."""
    async with valkey_server() as server:
        monkeypatch.setenv("RXDISPATCH_URL", server.target.safe)
        async with connect() as hub:
            board = board_of(hub)
            await board.submit(Task(0))
            assert isinstance(board, RedisBoard)
            assert str(server.socket_path) in repr(hub)
        async with connect("memory://") as hub:
            board = board_of(hub)
            assert isinstance(board, MemoryBoard)
        monkeypatch.setenv("RXDISPATCH_URL", "http://wrong")
        with pytest.raises(ConfigError, match=r"^url must"):
            connect()


async def test_a_server_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a URL, an embedded server starts, and keeps no data after the block."""
    monkeypatch.delenv("RXDISPATCH_URL", raising=False)
    for _ in range(2):
        async with connect() as hub:
            board = board_of(hub)
            assert 0 == (await board.counts()).ready
            await board.submit(Task(0))
            path = Path((await hub.client.call("ask", "CONFIG", "GET", "unixsocket"))[1].decode())
            assert path.exists()
        assert not path.exists()


async def test_a_server_that_keeps_its_data(tmp_path: Path) -> None:
    """With ``data_dir``, the next block finds the data of the previous one."""
    async with connect(data_dir=tmp_path / "data") as hub:
        board = board_of(hub, max_crashes=1)
        await board.submit([Task(n, id=f"{n}") for n in range(10)])
        (claim,) = await board.claim(1)
        await board.settle([claim.done()])
        (held,) = await board.claim(1, lease=60.0)
    async with connect(data_dir=tmp_path / "data") as hub:
        board = board_of(hub)
        counts = await board.counts()
        assert (8, 1, 1) == (counts.ready, counts.claimed, counts.done)
        (claim,) = await board.claim(1)
        assert ("2", 2) == (claim.task.id, claim.task.payload)
        assert claim.token > held.token
        with pytest.raises(ConfigError, match=r"^max_crashes must be 1"):
            await board_of(hub, max_crashes=2).counts()


async def test_namespaces_are_apart() -> None:
    """Boards of the same name in two namespaces share nothing, whatever the names are."""
    async with (
        valkey_server() as server,
        connect(server.target.safe, namespace="a") as one,
        connect(server.target.safe, namespace="a-b") as two,
    ):
        first = board_of(one)
        second = board_of(two)
        await first.submit(Task(0))
        assert 0 == (await second.counts()).ready


async def test_entering_without_a_server(tmp_path: Path) -> None:
    """Without a server, entering fails within the timeout and leaves nothing behind."""
    settings = Settings(store=StoreSettings(timeout=0.2, attempt_timeout=0.1))
    with pytest.raises(StoreUnavailableError, match="connect to unix:"):
        async with connect(f"unix://{tmp_path}/none.sock", settings=settings):
            pass


async def test_leaving_gives_back_what_was_not_handed_on() -> None:
    """When the hub is left, streams end and give their claims back within the grace."""
    async with valkey_server() as server:
        found: list[Claim[Any]] = []
        ended = asyncio.Event()
        settings = Settings(grace=0.05)
        async with connect(server.target.safe, settings=settings) as hub:
            board = board_of(hub)
            await board.submit([Task(n) for n in range(5)])
            board.claims(prefetch=3).subscribe(found.append, on_completed=ended.set)
            while len(found) < 3:
                await asyncio.sleep(0.005)
            await board.settle([found[0].done()])
        assert ended.is_set()
        async with connect(server.target.safe) as hub:
            counts = await board_of(hub).counts()
            assert (4, 0, 1) == (counts.ready, counts.claimed, counts.done)


async def test_an_error_in_the_block_comes_out() -> None:
    """The hub does not hide it."""
    with pytest.raises(RuntimeError, match="mine"):
        async with connect("memory://"):
            raise RuntimeError("mine")


def test_the_repr_hides_the_password() -> None:
    """The repr contains the host but no password."""
    hub = connect("redis://user:secret@localhost:1")
    assert "secret" not in repr(hub)
    assert "localhost" in repr(hub)


async def test_nodes_need_an_open_hub_with_a_server() -> None:
    """There are no nodes in memory, nor before or after the block."""
    async with valkey_server() as server:
        hub = connect(server.target.safe)
        asks: list[Callable[[Hub], object]] = [lambda hub: hub.nodes, lambda hub: hub.feed()]
        for ask in asks:
            with pytest.raises(ConfigError, match=r"^hub must be open"):
                ask(hub)
        async with hub, connect("memory://") as memory:
            for ask in asks:
                with pytest.raises(ConfigError, match=r"^nodes must have a server"):
                    ask(memory)
                ask(hub)
        for ask in asks:
            with pytest.raises(ConfigError, match=r"^hub must be open"):
                ask(hub)


async def test_fleets_of_namespaces_are_apart() -> None:
    """Nodes of the same id in two namespaces are different."""
    async with (
        valkey_server() as server,
        connect(server.target.safe, namespace="a") as one,
        connect(server.target.safe, namespace="a:b") as two,
        one.feed() as feed,
        two.feed() as other,
    ):
        await one.nodes.register(Node("n", capacity=3))
        await two.nodes.register(Node("n", capacity=5))
        first, second = feed.get("n"), other.get("n")
        assert first is not None
        assert second is not None
        assert (3, 5) == (first.capacity, second.capacity)


async def test_a_feed_that_is_open_when_the_hub_closes() -> None:
    """Streams complete, slots are released, and known nodes stay readable."""
    async with valkey_server() as server, connect(server.target.safe) as watching:
        ended: list[str] = []
        async with connect(server.target.safe) as hub:
            await hub.nodes.register(Node("a"))
            feed = hub.feed()
            await feed.__aenter__()
            feed.changes.subscribe(on_completed=lambda: ended.append("changes"))
            feed.modes.subscribe(on_completed=lambda: ended.append("modes"))
            (slot,) = await feed.reserve_many(1)
            assert "a" == slot.node.id
        assert ["changes", "modes"] == sorted(ended)
        assert feed.get("a") is not None
        with pytest.raises(ConfigError, match=r"^feed must be open"):
            await feed.reserve_many(1)
        await feed.close()
        await watching.nodes.reserve("a")


async def test_a_feed_is_entered_once() -> None:
    """A second block needs another feed."""
    async with valkey_server() as server, connect(server.target.safe) as hub:
        feed = hub.feed()
        async with feed:
            pass
        with pytest.raises(ConfigError, match=r"^feed must be entered once"):
            async with feed:
                pass
        with pytest.raises(ConfigError, match=r"^feed must be open"):
            async with hub.feed().reserve():
                pass


async def test_a_hub_forgets_boards_in_memory_that_nobody_uses(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The hub forgets an empty board without subscribers, and keeps all others."""
    monkeypatch.setattr("rxdispatch.boards.memory.engines.MANY_ENGINES", 10)
    async with connect("memory://") as hub:
        held = hub.board("held")
        await hub.board("full").submit(Task(1))
        await hub.board("paused").pause()
        hub.board("options", remember=5.0)
        events: list[str] = []
        watching = hub.board("watched").events.subscribe(lambda event: events.append(event.kind))
        for n in range(1000):
            hub.board(f"session-{n}")
            gc.collect(0)
        assert len(hub._engines) < 50
        await hub.board("watched").submit(Task(1))
        assert ["submitted"] == events
        watching.dispose()
        assert 1 == (await hub.board("full").counts()).ready
        assert [] == await hub.board("paused").claim(1)
        await held.submit(Task(1))
        assert 1 == (await hub.board("held").counts()).ready
        with pytest.raises(ConfigError, match="remember must be"):
            hub.board("options", remember=6.0)


async def test_the_url_of_a_hub() -> None:
    """Another process can connect with the URL, which contains no password."""
    async with connect() as hub:
        async with connect(hub.url) as other:
            await hub.board("jobs").submit(Task(1))
            assert 1 == (await other.board("jobs").counts()).ready
        with pytest.raises(ConfigError, match="hub must be open"):
            _ = other.url
    with system_redis(password="s3cr3t") as url:
        async with connect(url) as hub:
            assert "s3cr3t" not in hub.url
            assert url.replace("s3cr3t", "***") + "/0" == hub.url
    async with connect("memory://") as hub:
        assert "memory://" == hub.url


@pytest.mark.parametrize("left", [False, True])
async def test_a_hub_that_is_not_open(left: bool) -> None:
    """Every method of the hub raises before and after the block."""
    hub = connect()
    if left:
        async with hub:
            pass

    def use(name: str) -> object:
        attribute = getattr(hub, name)
        return attribute("x") if name in ("board", "actor") else attribute()

    for name in ("board", "actor", "feed", "nodes", "client", "url"):
        with pytest.raises(ConfigError, match="hub must be open"):
            use(name)


async def test_each_feed_is_closed_whatever_another_raises(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The error is raised after all feeds are closed and the server has stopped."""
    closed: list[str] = []

    async def fail() -> None:
        raise RuntimeError("mine")

    async def close() -> None:
        await asyncio.sleep(0.01)
        closed.append("second")

    hub = connect()
    await hub.__aenter__()
    first, second = hub.feed(), hub.feed()
    monkeypatch.setattr(first, "close", fail)
    monkeypatch.setattr(second, "close", close)
    with pytest.raises(RuntimeError, match="mine"):
        await hub.__aexit__(None, None, None)
    assert ["second"] == closed
    assert "closed" in repr(hub)
