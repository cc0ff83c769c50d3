"""The proxy that other tests use."""

from __future__ import annotations

import asyncio

import pytest

from rxdispatch.config import StoreSettings
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.store.client import Client
from rxdispatch.store.scripts import Script
from tests.proxy import Proxy
from tests.servers import valkey_server


@pytest.mark.parametrize("tcp", [False, True])
async def test_a_dropped_reply_was_executed(tcp: bool) -> None:
    """After each lost reply the client repeats a request that the server has executed."""
    async with valkey_server() as server, Proxy(server.target, tcp=tcp) as proxy:
        client = Client(proxy.target, StoreSettings())
        proxy.drop_replies(2)
        assert await client.call("count", "INCR", "n") == 3
        assert proxy.dropped == 2
        await client.close()


async def test_only_replies_to_a_command_are_dropped() -> None:
    """Replies to other commands pass."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        proxy.drop_replies(1, b"INCR")
        assert await client.call("ask", "PING") == b"PONG"
        assert await client.call("count", "INCR", "n") == 2
        assert await client.call("count", "INCR", "n") == 3
        await client.close()


async def test_cutting_is_survived() -> None:
    """The client replaces a cut connection."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        await client.open()
        proxy.cut()
        assert await client.call("ask", "PING") == b"PONG"
        assert proxy.accepted == 2
        await client.close()


async def test_a_black_hole_ends_with_healing() -> None:
    """No bytes pass until the proxy is healed."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        await client.open()
        client.settings = StoreSettings(timeout=0.1)
        proxy.blackhole()
        with pytest.raises(StoreUnavailableError):
            await client.call("ask", "PING")
        client.settings = StoreSettings()
        proxy.heal()
        assert await client.call("ask", "PING") == b"PONG"
        await client.close()


async def test_replies_are_delayed() -> None:
    """A delay longer than the attempt timeout makes an attempt fail."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings(timeout=0.2, attempt_timeout=0.05))
        proxy.delay(0.1)
        with pytest.raises(StoreUnavailableError) as caught:
            await client.call("ask", "PING")
        assert caught.value.maybe_executed
        client.settings = StoreSettings()
        proxy.delay(0.01)
        assert await client.call("ask", "PING") == b"PONG"
        await client.close()
        await asyncio.sleep(0)


async def test_a_held_request_has_not_been_executed() -> None:
    """The request waits for the gate; other commands pass."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        gate = proxy.hold(b"INCR")
        counting = asyncio.create_task(client.call("count", "INCR", "n"))
        await gate.reached()
        assert await client.call("read", "GET", "n") is None
        gate.open()
        assert 1 == await counting
        assert 2 == await client.call("count", "INCR", "n")
        await client.close()


async def test_a_held_reply_is_of_what_was_executed() -> None:
    """The caller waits for its reply; the next reply is not held."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        gate = proxy.hold(b"INCR", replies=True)
        counting = asyncio.create_task(client.call("count", "INCR", "n"))
        await gate.reached()
        assert b"1" == await client.call("read", "GET", "n")
        assert 2 == await client.call("count", "INCR", "n")
        assert not counting.done()
        gate.open()
        assert 1 == await counting
        assert 1 == gate.held
        await client.close()


async def test_the_held_reply_of_a_script_is_of_one_that_ran() -> None:
    """The proxy passes the reply that asks for the text of the script."""
    script = Script("return redis.call('INCR', KEYS[1])")
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        gate = proxy.hold(b"EVALSHA", replies=True)
        counting = asyncio.create_task(client.run("count", script, [b"n"], []))
        await gate.reached()
        assert b"1" == await client.call("read", "GET", "n")
        gate.open()
        assert 1 == await counting
        await client.close()


@pytest.mark.parametrize("replies", [False, True])
async def test_a_gate_holds_as_many_as_it_is_told(replies: bool) -> None:
    """A gate holds two of three, or all; healing opens every gate."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        two = proxy.hold(b"INCR", replies=replies, count=2)
        first = [asyncio.create_task(client.call("count", "INCR", "n")) for _ in range(2)]
        await two.reached(2)
        assert (1 if not replies else 3) == await client.call("count", "INCR", "n")
        every = proxy.hold(replies=replies, count=None)
        later = [asyncio.create_task(client.call("count", "INCR", "n")) for _ in range(5)]
        await every.reached(5)
        assert not any(call.done() for call in (*first, *later))
        proxy.heal()
        assert [*range(1, 9)] == sorted(
            [*await asyncio.gather(*first, *later), 1 if not replies else 3]
        )
        assert (2, 5) == (two.held, every.held)
        await client.close()


async def test_a_connection_is_cut_although_a_gate_holds_it() -> None:
    """The caller repeats its request over another connection, which passes."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        gate = proxy.hold(b"INCR", replies=True)
        counting = asyncio.create_task(client.call("count", "INCR", "n"))
        await gate.reached()
        proxy.cut()
        assert 2 == await counting
        await client.close()
