"""``Client`` repeats until a timeout, says what may have happened, and loses no connection."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import structlog
from redis.exceptions import OutOfMemoryError, ResponseError

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.store.client import Client
from rxdispatch.store.scripts import Script
from rxdispatch.store.url import Target, parse_url
from tests.proxy import Proxy
from tests.servers import Kind, any_server, system_redis, valkey_server

COUNT = Script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
QUICK = StoreSettings(timeout=0.3, attempt_timeout=0.1)


@asynccontextmanager
async def connected(
    target: Target, settings: StoreSettings | None = None
) -> AsyncGenerator[Client]:
    """Yield a client, which is closed at the end."""
    client = Client(target, settings or StoreSettings())
    try:
        yield client
    finally:
        await client.close()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_scripts_and_commands(kind: Kind) -> None:
    """Keys and arguments arrive; the server keeps a script after the first call."""
    echo = Script("return {KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]}")
    async with any_server(kind) as target, connected(target) as client:
        await client.open()
        for _ in range(2):
            reply = await client.run("echo", echo, [b"k\xff"], [b"\x00", "ü", 2**53, 1.5])
            assert [b"k\xff", b"\x00", "ü".encode(), b"9007199254740992", b"1.5"] == reply
        assert [True] == await client.redis.script_exists(echo.sha)
        assert await client.call("read", "GET", "nothing") is None
        big = await client.run("many", Script("return #ARGV"), [], [b"x" * 100] * 7000)
        assert big == 7000


async def test_flushed_scripts_are_sent_again() -> None:
    """The next round trip sends the text, so constant flushing cannot starve a call."""
    async with valkey_server() as server, connected(server.target) as client:
        for expected in range(1, 6):
            assert expected == await client.run("count", COUNT, [b"n"], [1])
            await client.call("flush", "SCRIPT", "FLUSH")
        assert await client.call("info", "INFO", "commandstats") is not None


async def test_answers_of_the_server_pass_through() -> None:
    """An error reply of the server or a script is not an outage."""
    async with valkey_server() as server, connected(server.target) as client:
        await client.call("fill", "SET", "text", "x")
        with pytest.raises(ResponseError, match="not an integer"):
            await client.run("count", COUNT, [b"text"], [1])
        with pytest.raises(ResponseError, match="mine"):
            await client.run("fail", Script("return redis.error_reply('mine')"), [], [])
        with pytest.raises(ResponseError, match="unknown command"):
            await client.call("guess", "GUESS")
        await client.call("limit", "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(OutOfMemoryError):
            await client.call("fill", "SET", "text", "y")


async def test_many_calls_share_few_connections() -> None:
    """200 concurrent calls wait for one of four connections, and each gets its reply."""
    settings = StoreSettings(connections=4)
    async with valkey_server() as server, connected(server.target, settings) as client:
        replies = await asyncio.gather(*(client.call("ask", "ECHO", i) for i in range(200)))
        assert [str(i).encode() for i in range(200)] == replies
        assert await _connections(client) <= 5


async def test_waiting_for_a_connection_counts() -> None:
    """A call that got no connection within the timeout has not been sent."""
    settings = StoreSettings(timeout=0.2, attempt_timeout=0.2, connections=1)
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        connected(proxy.target, settings) as client,
    ):
        await client.open()
        proxy.blackhole()
        calls = [client.call("ask", "PING") for _ in range(2)]
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert [StoreUnavailableError] * 2 == [type(result) for result in results]
        assert [True, False] == [getattr(result, "maybe_executed", None) for result in results]


async def test_a_refused_connection() -> None:
    """The timeout holds, and the call has not been executed."""
    async with valkey_server() as server:
        target = server.target
    async with connected(target, QUICK) as client:
        before = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="connect to unix:") as caught:
            await client.open()
        assert 0.3 <= time.monotonic() - before < 2.0
        assert caught.value.maybe_executed is False
        assert caught.value.__cause__ is not None


async def test_a_stopped_server() -> None:
    """The timeout holds, and the call may have been executed; the server does so later."""
    async with valkey_server() as server, connected(server.target, QUICK) as client:
        await client.open()
        os.kill(server.pid, signal.SIGSTOP)
        before = time.monotonic()
        with pytest.raises(StoreUnavailableError, match="it may have been executed") as caught:
            await client.run("count", COUNT, [b"n"], [1])
        took = time.monotonic() - before
        os.kill(server.pid, signal.SIGCONT)
        assert 0.3 <= took < 2.0
        assert caught.value.maybe_executed is True
        assert await client.call("ask", "PING") == b"PONG"


async def test_a_big_call_to_a_stopped_server_keeps_no_descriptor() -> None:
    """A connection is closed at once, even if the socket has not taken the whole request."""
    async with valkey_server() as server, connected(server.target, QUICK) as client:
        await client.open()
        before = _descriptors()
        os.kill(server.pid, signal.SIGSTOP)
        with pytest.raises(StoreUnavailableError):
            await client.call("big", "SET", "k", b"x" * 10_000_000)
        await asyncio.sleep(0)
        after = _descriptors()
        os.kill(server.pid, signal.SIGCONT)
        assert after < before


async def test_idle_connections_that_were_closed_are_replaced() -> None:
    """A call does not lose an attempt to a closed connection."""
    async with valkey_server() as server, connected(server.target) as client:
        await asyncio.gather(*(client.call("ask", "PING") for _ in range(8)))
        await client.call("kill", "CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await asyncio.sleep(0.01)
        with structlog.testing.capture_logs() as logs:
            assert await client.call("ask", "PING") == b"PONG"
        assert [] == logs


async def test_a_loading_or_read_only_server_is_waited_for() -> None:
    """The server replies but cannot serve the call now, and nothing was executed."""
    async with valkey_server() as server, connected(server.target, QUICK) as client:
        await client.call("demote", "REPLICAOF", "127.0.0.1", "1")
        with pytest.raises(StoreUnavailableError) as caught:
            await client.run("count", COUNT, [b"n"], [1])
        assert caught.value.maybe_executed is False
        client.settings = StoreSettings(timeout=10.0)
        call = asyncio.create_task(client.run("count", COUNT, [b"n"], [1]))
        await asyncio.sleep(0.02)
        await client.call("promote", "REPLICAOF", "NO", "ONE")
        assert await call == 1


async def test_a_busy_server_is_waited_for() -> None:
    """A script of another client that runs too long delays a call."""
    settings = StoreSettings(timeout=5.0)
    async with valkey_server() as server, connected(server.target, settings) as client:
        await client.call("limit", "CONFIG", "SET", "busy-reply-threshold", "10")
        loop = Script("while true do end")
        running = asyncio.create_task(client.call("loop", "EVAL", loop.text, 0))
        await asyncio.sleep(0.05)
        call = asyncio.create_task(client.call("ask", "GET", "k"))
        await asyncio.sleep(0.05)
        assert not call.done()
        await client.call("kill", "SCRIPT", "KILL")
        assert await call is None
        with pytest.raises(ResponseError):
            await running


async def test_cancellation_mixes_nothing_up() -> None:
    """A cancellation at any moment leaves every connection usable."""
    rng = random.Random(1)
    settings = StoreSettings(connections=3)
    async with valkey_server() as server, connected(server.target, settings) as client:

        async def ask(number: int) -> None:
            expected = str(number).encode() * 50
            assert expected == await client.call("ask", "ECHO", expected)

        for start in range(50):
            tasks = [asyncio.create_task(ask(start * 10 + i)) for i in range(10)]
            for _ in range(rng.randrange(8)):
                await asyncio.sleep(0)
            for task in rng.sample(tasks, 5):
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
            assert {None, asyncio.CancelledError} >= {r and type(r) for r in results}
        await asyncio.gather(*(ask(i) for i in range(20)))
        assert await _connections(client) <= 4


async def test_closing_ends_running_calls() -> None:
    """No connection stays open, and later calls fail."""
    before = _descriptors()
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, StoreSettings())
        await client.open()
        gate = proxy.hold(b"PING")
        call = asyncio.create_task(client.call("ask", "PING"))
        await gate.reached()
        await client.close()
        with pytest.raises(StoreUnavailableError):
            await call
        with pytest.raises(ConfigError, match="the hub must be open"):
            await client.call("late", "PING")
        await client.close()
    await asyncio.sleep(0.01)
    assert before == _descriptors()


async def test_over_tcp_and_another_database() -> None:
    """The database of the URL is used; one that does not exist is a ConfigError."""
    with system_redis(options={"databases": "3"}) as url:
        async with connected(parse_url(f"{url}/2")) as two, connected(parse_url(url)) as zero:
            await two.call("write", "SET", "k", "v")
            assert await zero.call("read", "GET", "k") is None
            assert await two.call("read", "GET", "k") == b"v"
        async with connected(parse_url(f"{url}/3")) as three:
            with pytest.raises(ConfigError, match="DB index is out of range"):
                await three.open()


async def test_rubbish_is_an_outage() -> None:
    """A server that does not speak the protocol counts as unreachable."""

    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(speak, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with connected(parse_url(f"redis://127.0.0.1:{port}"), QUICK) as client:
        with pytest.raises(StoreUnavailableError):
            await client.open()
    server.close()
    await server.wait_closed()


def test_memory_has_no_server() -> None:
    """The client refuses a URL without a server."""
    with pytest.raises(ConfigError, match="must name a server, got 'memory://'"):
        Client(parse_url("memory://"), StoreSettings())


async def _connections(client: Client) -> int:
    text: bytes = await client.call("info", "INFO", "clients")
    return int(text.partition(b"connected_clients:")[2].split()[0])


def _descriptors() -> int:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    return len(list(folder.iterdir()))
