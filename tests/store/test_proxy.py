"""The proxy that other tests rely on."""

from __future__ import annotations

import asyncio

import pytest

from rxdispatch.config import StoreSettings
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.store.client import Client
from tests.proxy import Proxy
from tests.servers import valkey_server


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_dropped_reply_was_executed(tcp: bool) -> None:
    """Each lost reply makes the client repeat what the server has done already."""
    async with valkey_server() as server, Proxy(server.target, tcp=tcp) as proxy:
        client = Client(proxy.target, StoreSettings())
        proxy.drop_replies(2)
        assert await client.call("count", "INCR", "n") == 3
        assert proxy.dropped == 2
        await client.close()


async def test_only_replies_to_a_command_are_dropped() -> None:
    """Other commands pass."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        proxy.drop_replies(1, b"INCR")
        assert await client.call("ask", "PING") == b"PONG"
        assert await client.call("count", "INCR", "n") == 2
        assert await client.call("count", "INCR", "n") == 3
        await client.close()


async def test_cutting_is_survived() -> None:
    """A cut connection is replaced."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        await client.open()
        proxy.cut()
        assert await client.call("ask", "PING") == b"PONG"
        assert proxy.accepted == 2
        await client.close()


async def test_a_black_hole_ends_with_healing() -> None:
    """Nothing passes until then."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings(limit=0.1))
        await client.open()
        proxy.blackhole()
        with pytest.raises(StoreUnavailableError):
            await client.call("ask", "PING")
        proxy.heal()
        assert await client.call("ask", "PING") == b"PONG"
        await client.close()


async def test_replies_are_delayed() -> None:
    """A delay longer than an attempt makes it fail."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings(limit=0.2, attempt=0.05))
        proxy.delay(0.1)
        with pytest.raises(StoreUnavailableError) as caught:
            await client.call("ask", "PING")
        assert caught.value.maybe_executed
        proxy.delay(0.01)
        assert await client.call("ask", "PING") == b"PONG"
        await client.close()
        await asyncio.sleep(0)
