"""Identities that are out of date, take turns, are lost, or cannot be known."""

from __future__ import annotations

import asyncio
from typing import Any

import hiredis
import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch.store.connections.wire import pack
from rxdispatch.store.url import Target
from tests.failover.shifted_server import ShiftedServer
from tests.servers import Kind, any_server
from tests.stream_server import StreamServer

HOUR = 3_600_000_000
META = b"{rxd:b}:meta"
every_kind = pytest.mark.parametrize("kind", ["valkey", "redis"])


def logged(logs: Any, event: str) -> list[Any]:
    """Return the entries with this name."""
    return [entry for entry in logs if entry["event"] == event]


async def refusals(server: ShiftedServer) -> int:
    """Return how many requests the fence has refused."""
    _, found, rest = (await server.call("INFO", "errorstats")).partition(b"OTHERSERVER:count=")
    return int(rest.split()[0]) if found else 0


@every_kind
async def test_an_older_answer_is_refused_and_asked_again(kind: Kind) -> None:
    """A connection from before its server was a replica for a while asks again, and goes on."""
    server = ShiftedServer(kind)
    try:
        async with rxd.connect(server.target.safe) as hub, rxd.connect(server.target.safe) as other:
            board, second = hub.board("b"), other.board("b")
            await board.submit(rxd.Task(1, id="a"))
            await server.call("REPLICAOF", "127.0.0.1", 1)
            await server.promote()
            await second.submit(rxd.Task(2, id="b"))
            now = await server.call("HGET", META, "server")
            before = await server.call("HGETALL", META)
            assert 0 == board.stats.epochs
            result = await board.submit([rxd.Task(1, id="a"), rxd.Task(3, id="c")])
            assert (("c",), ("a",)) == (result.accepted, result.duplicates)
            assert 1 == await refusals(server)
            assert now == await server.call("HGET", META, "server")
            assert before.index(b"servers") >= 0
            assert 1 == len((await server.call("HGET", META, "servers")).split())
            assert await server.call("HGET", META, "turns") is None
            assert 1 == board.stats.epochs
    finally:
        await server.close()


async def test_jumps_add_up_to_an_hour_at_most() -> None:
    """However often servers replace each other, tokens are not further ahead than an hour."""
    server = ShiftedServer("valkey")
    try:
        async with rxd.connect(server.target.safe) as hub:
            board = hub.board("b")
            last = 0
            for n in range(80):
                await server.call("HSET", META, "server", f"another{n}")
                await board.submit(rxd.Task(n))
                (claim,) = await board.claim(1)
                assert claim.token > last
                last = claim.token
                await board.settle([claim.done()])
            ahead = last - await server.time()
            assert HOUR - 60_000_000 < ahead < HOUR
            assert 8 == len((await server.call("HGET", META, "servers")).split())
    finally:
        await server.close()


class AskingProxy(StreamServer):
    """Asks the server *asked* who it is, and passes everything else to *served*."""

    def __init__(self, asked: Target, served: Target) -> None:
        super().__init__()
        self._asked, self._served = asked, served

    @property
    def url(self) -> str:
        """The URL of the proxy."""
        return f"redis://127.0.0.1:{self.port}"

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass requests on, and their replies back, one by one."""
        requests = hiredis.Reader()
        links: dict[Target, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}
        try:
            for target in {self._asked, self._served}:
                links[target] = await asyncio.open_connection(target.host, target.port)
            while data := await reader.read(1 << 16):
                requests.feed(data)
                while (request := requests.gets()) is not False:
                    back, forth = links[self._asked if request[0] == b"INFO" else self._served]
                    forth.write(pack(tuple(request)))
                    writer.write(await _reply(back))
        finally:
            for _, forth in links.values():
                forth.transport.abort()


async def _reply(stream: asyncio.StreamReader) -> bytes:
    """Return the bytes of the next reply."""
    reader, data = hiredis.Reader(notEnoughData=_Missing), b""
    while True:
        some = await stream.read(1 << 16)
        if not some:
            raise ConnectionResetError
        data += some
        reader.feed(some)
        if reader.gets() is not _Missing:
            return data


class _Missing:
    """What the parser returns for a reply that is not whole."""


@every_kind
async def test_servers_that_take_turns(kind: Kind) -> None:
    """Behind proxies that ask two servers and write to one, the fence goes off with a warning."""
    one, other = ShiftedServer(kind), ShiftedServer(kind)
    try:
        await one.call("PING")
        await other.call("PING")
        async with (
            AskingProxy(one.target, one.target) as first,
            AskingProxy(other.target, one.target) as second,
            rxd.connect(first.url) as hub,
            rxd.connect(second.url) as other_hub,
        ):
            tokens: list[int] = []
            with capture_logs() as logs:
                boards = hub.board("b"), other_hub.board("b")
                for n in range(40):
                    for board in boards:
                        await board.submit(rxd.Task(n))
                        (claim,) = await board.claim(1)
                        tokens.append(claim.token)
                        assert [True] == await board.settle([claim.done()])
            (entry,) = logged(logs, "fence_off")
            runs = {await run_id(server) for server in (one, other)}
            assert runs == {entry[name].partition("-")[0] for name in ("one", "other")}
            assert [] == logged(logs, "server_replaced")
            assert sorted(tokens) == tokens
            assert tokens[-1] - await one.time() < 6 * 60_000_000
            assert 80 == (await boards[0].counts()).done
    finally:
        await one.close()
        await other.close()


async def run_id(server: ShiftedServer) -> str:
    """Return the beginning of a server's identity."""
    info = await server.call("INFO", "server")
    return str(info.partition(b"run_id:")[2][:16].decode())


@every_kind
async def test_meta_is_lost(kind: Kind) -> None:
    """The server is named again, and tokens grow, even if they were ahead of the clock."""
    async with any_server(kind) as target, rxd.connect(target.safe) as hub:
        board = hub.board("b")
        await board.submit([rxd.Task(n) for n in range(2)])
        await hub.client.call("test", "HSET", META, "server", "another")
        (before,) = await board.claim(1)
        named = await hub.client.call("test", "HGET", META, "server")
        await hub.client.call("test", "DEL", META)
        (after,) = await board.claim(1)
        assert after.token > before.token
        assert named == await hub.client.call("test", "HGET", META, "server")
        assert 0 == board.stats.epochs
        assert [True, True] == await board.settle([before.done(), after.done()])


@every_kind
async def test_without_the_right_to_info(kind: Kind) -> None:
    """The fence is off, without a word."""
    async with any_server(kind) as target:
        rule = ("on", ">secret", "~*", "&*", "+@all", "-info")
        async with rxd.connect(target.safe) as admin:
            await admin.client.call("test", "ACL", "SETUSER", "bob", *rule)
            place = target.path if target.scheme == "unix" else f"{target.host}:{target.port}"
            url = f"{target.scheme}://bob:secret@{place}"
            with capture_logs() as logs:
                async with rxd.connect(url) as hub:
                    board = hub.board("b")
                    await board.submit(rxd.Task(1))
                    (claim,) = await board.claim(1)
                    assert [True] == await board.settle([claim.done()])
            assert [] == [entry for entry in logs if entry["log_level"] == "warning"]
            assert await admin.client.call("test", "HGET", META, "server") is None
            # A client that knows the server names it, and does not take it for another.
            await admin.board("b").submit(rxd.Task(2))
            assert await admin.client.call("test", "HGET", META, "servers") is None
            assert await admin.client.call("test", "HGET", META, "server") is not None
