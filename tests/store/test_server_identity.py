"""Connections learn which process they have reached, and requests name it."""

from __future__ import annotations

import re

import hiredis
import pytest
from structlog.testing import capture_logs

from rxdispatch.config import StoreSettings
from rxdispatch.store.client import Client
from rxdispatch.store.connections.server_identity import UNKNOWN, ServerIdentity
from rxdispatch.store.connections.wire import pack
from rxdispatch.store.fence import Fence
from rxdispatch.store.scripts import Script
from tests.servers import Kind, any_server

FIELDS = (b"run_id", b"master_replid")
LAST = Script("return ARGV[#ARGV]")


def parsed(request: bytes) -> list[bytes]:
    """Return the arguments of a request."""
    reader = hiredis.Reader()
    reader.feed(request)
    found: list[bytes] = reader.gets()
    return found


async def asked(client: Client) -> int:
    """Return how often the server was asked before; this question counts later."""
    stats: bytes = await client.call("test", "INFO", "commandstats")
    return int(stats.partition(b"cmdstat_info:calls=")[2].partition(b",")[0])


@pytest.mark.parametrize("name", [b"", b"a", b"a" * 33])
def test_the_last_argument_is_replaced(name: bytes) -> None:
    """A plus says that the connection has just asked; what is unknown stays empty."""
    identity, request = ServerIdentity(name), pack((b"EVALSHA", b"\r\n", UNKNOWN))
    first = b"+" + name if name else b""
    assert [b"EVALSHA", b"\r\n", first] == parsed(identity.seal(request))
    identity.answered()
    assert [b"EVALSHA", b"\r\n", name] == parsed(identity.seal(request))


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_connection_asks_once(kind: Kind) -> None:
    """The name is the beginnings of the run_id and of the replication id."""
    async with any_server(kind) as target:
        client, fence = Client(target, StoreSettings()), Fence("test")
        try:
            first = await client.run("test", LAST, [], [], fence)
            before = await asked(client)
            again = [await client.run("test", LAST, [], ["x"], fence) for _ in range(3)]
            assert before + 1 == await asked(client)
            info = await client.call("test", "INFO")
            run, history = (re.search(rb"%s:(\w{16})" % field, info) for field in FIELDS)
            assert run is not None
            assert history is not None
            name = run[1] + b"-" + history[1]
            # The first request was answered with NOSCRIPT, so the connection had still just asked.
            assert b"+" + name == first
            assert [name] * 3 == again
            assert b"x" == await client.run("test", LAST, [], ["x"])
        finally:
            await client.close()


def test_another_server_counts_once() -> None:
    """The first server is no news, and neither is a late answer of one before."""
    fence = Fence("test")
    seen: list[bytes] = []
    fence.replaced.observable.subscribe(seen.append)
    with capture_logs() as logs:
        for name in (b"", b"a", b"a", b"b", b"a", b"b", b"", b"c"):
            fence.answered(ServerIdentity(name))
    assert ([b"b", b"c"], 2) == (seen, fence.epochs)
    assert [("a", "b"), ("b", "c")] == [(entry["old"], entry["new"]) for entry in logs]
