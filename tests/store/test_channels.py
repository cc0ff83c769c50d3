"""``Channels`` are hot, share one subscription, and report missed messages."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from reactivex import operators as ops

from rxdispatch.config import StoreSettings
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.store.client import Client
from rxdispatch.store.pubsub.channels import Channels
from rxdispatch.store.url import Target
from tests.proxy import Proxy
from tests.servers import Kind, any_server, valkey_server


@asynccontextmanager
async def opened(target: Target, ping: float = 5.0) -> AsyncGenerator[tuple[Client, Channels]]:
    """Yield a client and its channels, which are closed at the end."""
    client = Client(target, StoreSettings(ping_interval=ping, attempt_timeout=0.2))
    channels = Channels(client)
    try:
        yield client, channels
    finally:
        await channels.close()
        await client.close()


async def until(condition: Callable[[], Any], seconds: float = 5.0) -> None:
    """Wait for *condition* without blocking the loop."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.002)


async def publish(client: Client, name: str, *messages: str) -> None:
    """Publish the messages, one after the other."""
    for message in messages:
        await client.call("publish", "PUBLISH", name, message)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_messages_follow_a_confirmation(kind: Kind) -> None:
    """A subscriber gets None first, then each message of its channel and no other."""
    async with any_server(kind) as target, opened(target) as (client, channels):
        got: list[bytes | None] = []
        channels.channel(b"a\xff").subscribe(got.append)
        await channels.confirmed(b"a\xff")
        assert [None] == got
        await client.call("publish", "PUBLISH", b"a\xff", b"\x00")
        await publish(client, "b", "other")
        await client.call("publish", "PUBLISH", b"a\xff", b"2")
        await until(lambda: len(got) == 3)
        assert [None, b"\x00", b"2"] == got


async def test_one_subscription_for_all_who_listen() -> None:
    """The subscription and its connection begin with the first subscriber and end with the last."""
    async with valkey_server() as server, opened(server.target) as (client, channels):
        first: list[bytes | None] = []
        second: list[bytes | None] = []
        await publish(client, "a", "nobody hears it")
        await client.call("list", "PUBSUB", "CHANNELS")
        before = _descriptors()
        one = channels.channel(b"a").subscribe(first.append)
        await channels.confirmed(b"a")
        two = channels.channel(b"a").subscribe(second.append)
        assert [None] == second
        assert [b"a", 1] == await client.call("count", "PUBSUB", "NUMSUB", "a")
        one.dispose()
        one.dispose()
        await publish(client, "a", "x")
        await until(lambda: len(second) == 2)
        assert [[None], [None, b"x"]] == [first, second]
        other = channels.channel(b"b").subscribe()
        await channels.confirmed(b"b")
        two.dispose()
        while await client.call("list", "PUBSUB", "CHANNELS") != [b"b"]:
            await asyncio.sleep(0.002)
        other.dispose()
        await until(lambda: _descriptors() == before)
        assert await _listening(client) == b""
        again = channels.channel(b"a").subscribe(first.append)
        await channels.confirmed(b"a")
        assert [None, None] == first
        again.dispose()


async def test_leaving_and_coming_back_at_once() -> None:
    """The new subscriber gets a confirmation of its own, and later messages."""
    async with valkey_server() as server, opened(server.target) as (client, channels):
        for rounds in range(12):
            channels.channel(b"a").subscribe().dispose()
            got: list[bytes | None] = []
            subscription = channels.channel(b"a").subscribe(got.append)
            for _ in range(rounds):
                await asyncio.sleep(0)
            subscription.dispose()
            got.clear()
            subscription = channels.channel(b"a").subscribe(got.append)
            await channels.confirmed(b"a")
            await publish(client, "a", str(rounds))
            await until(partial(_reached, got, 2))
            assert [None, str(rounds).encode()] == got
            subscription.dispose()


async def test_take_one() -> None:
    """A subscriber may leave while it receives a message."""
    async with valkey_server() as server, opened(server.target) as (client, channels):
        done: list[bool] = []
        channels.channel(b"a").pipe(ops.take(1)).subscribe(on_completed=lambda: done.append(True))
        await until(lambda: done)
        while await _listening(client):
            await asyncio.sleep(0.002)


async def test_a_killed_connection_is_noticed() -> None:
    """Every channel emits None again, as messages may have been lost."""
    async with valkey_server() as server, opened(server.target) as (client, channels):
        got: list[bytes | None] = []
        other: list[bytes | None] = []
        channels.channel(b"a").subscribe(got.append)
        channels.channel(b"b").subscribe(other.append)
        await channels.confirmed(b"a")
        await channels.confirmed(b"b")
        with structlog.testing.capture_logs() as logs:
            for count in (2, 3):
                await client.call("kill", "CLIENT", "KILL", "TYPE", "pubsub")
                await until(partial(_reached, got, count))
                await until(partial(_reached, other, count))
        await publish(client, "a", "x")
        await until(lambda: len(got) == 4)
        assert [[None, None, None, b"x"], [None, None, None]] == [got, other]
        events = [(entry["event"], entry["server"]) for entry in logs]
        safe = server.target.safe
        assert [("channels_lost", safe), ("channels_restored", safe)] * 2 == events


async def test_a_silent_connection_is_noticed() -> None:
    """An unanswered ping ends the connection, although neither side closed it."""
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        opened(proxy.target, ping=0.05) as (_, channels),
    ):
        got: list[bytes | None] = []
        channels.channel(b"a").subscribe(got.append)
        await channels.confirmed(b"a")
        await asyncio.sleep(0.2)
        # Answered pings change nothing.
        assert [None] == got
        proxy.blackhole()
        accepted = proxy.accepted
        await until(lambda: proxy.accepted > accepted)
        proxy.heal()
        await until(lambda: len(got) == 2)
        await channels.confirmed(b"a")


async def test_a_server_that_comes_back(tmp_path: Path) -> None:
    """The channels reconnect, however long it takes, and even for the first connection."""
    async with valkey_server() as server:
        target = server.target
        async with Proxy(target) as proxy, opened(proxy.target) as (client, channels):
            proxy.upstream = Target(scheme="unix", path="/nowhere")
            got: list[bytes | None] = []
            channels.channel(b"a").subscribe(got.append)
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await channels.confirmed(b"a")
            proxy.upstream = target
            await channels.confirmed(b"a")
            os.kill(server.pid, signal.SIGKILL)
            await until(lambda: not _confirmed(channels))
            async with valkey_server() as other:
                proxy.upstream = other.target
                await channels.confirmed(b"a")
                await publish(client, "a", "x")
                await until(lambda: len(got) == 3)
                assert [None, None, b"x"] == got


async def test_a_failing_subscriber_harms_nobody() -> None:
    """The error of the subscriber is logged, and the others receive every message."""
    async with valkey_server() as server, opened(server.target) as (client, channels):

        def fail(_: bytes | None) -> None:
            raise LookupError("mine")

        got: list[bytes | None] = []
        with structlog.testing.capture_logs() as logs:
            channels.channel(b"a").subscribe(fail)
            channels.channel(b"a").subscribe(got.append)
            await channels.confirmed(b"a")
            await publish(client, "a", "x")
            await until(lambda: len(got) == 2)
        assert ["channel_listener_failed"] * 2 == [entry["event"] for entry in logs]


async def test_an_idle_connection_sends_pings_only() -> None:
    """The channels do not poll."""
    async with valkey_server() as server, opened(server.target) as (client, channels):
        channels.channel(b"a").subscribe()
        await channels.confirmed(b"a")
        before = await _commands(client)
        await asyncio.sleep(0.3)
        after = await _commands(client)
        # The one command is the first of the two checks.
        assert after - before == 1


async def test_closing() -> None:
    """Observables complete, waiting callers wake up, and no connection stays open."""
    before = _descriptors()
    async with valkey_server() as server:
        client = Client(server.target, StoreSettings())
        channels = Channels(client)
        done: list[str] = []
        channels.channel(b"a").subscribe(on_completed=lambda: done.append("a"))
        waiting = asyncio.create_task(channels.confirmed(b"a"))
        await asyncio.sleep(0)
        await channels.close()
        await channels.close()
        with pytest.raises(StoreUnavailableError):
            await waiting
        channels.channel(b"b").subscribe(on_completed=lambda: done.append("b"))
        assert ["a", "b"] == done
        await client.close()
    await asyncio.sleep(0.01)
    assert before == _descriptors()


async def test_nobody_listens() -> None:
    """Without a subscriber, ``confirmed`` raises, even if it already waits."""
    async with valkey_server() as server, opened(server.target) as (_, channels):
        with pytest.raises(ConfigError, match="the channel must have a subscriber, got b'a'"):
            await channels.confirmed(b"a")
        subscription = channels.channel(b"a").subscribe()
        waiting = asyncio.create_task(channels.confirmed(b"a"))
        await asyncio.sleep(0)
        subscription.dispose()
        with pytest.raises(StoreUnavailableError):
            await waiting


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_barrier(kind: Kind) -> None:
    """After a barrier, every message that was published before it has been delivered."""
    async with any_server(kind) as target, opened(target) as (client, channels):
        got: list[bytes | None] = []
        channels.channel(b"a").subscribe(got.append)
        await channels.confirmed(b"a")
        for n in range(50):
            await publish(client, "a", *(f"{n}-{i}" for i in range(5)))
            await channels.barrier(5.0)
            assert f"{n}-4".encode() == got[-1]
        assert 251 == len(got)
        await asyncio.gather(*(channels.barrier(5.0) for _ in range(20)))


async def test_a_barrier_without_a_connection() -> None:
    """Without subscribers a barrier fails, even after the last one has left."""
    async with valkey_server() as server, opened(server.target) as (_, channels):
        with pytest.raises(StoreUnavailableError, match="ping the channels"):
            await channels.barrier(5.0)
        subscription = channels.channel(b"a").subscribe()
        await channels.confirmed(b"a")
        await channels.barrier(5.0)
        await channels.close()
        with pytest.raises(StoreUnavailableError):
            await channels.barrier(5.0)
        subscription.dispose()


async def test_a_barrier_that_is_not_answered() -> None:
    """The connection is replaced, and the subscribers get a None."""
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        opened(proxy.target) as (_, channels),
    ):
        got: list[bytes | None] = []
        channels.channel(b"a").subscribe(got.append)
        await channels.confirmed(b"a")
        proxy.blackhole()
        with pytest.raises(StoreUnavailableError):
            await channels.barrier(0.1)
        proxy.heal()
        await until(lambda: _reached(got, 2))
        assert [None, None] == got
        await channels.barrier(5.0)


async def test_a_barrier_whose_connection_is_cut() -> None:
    """The barrier fails at once and does not wait for its timeout."""
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        opened(proxy.target) as (_, channels),
    ):
        channels.channel(b"a").subscribe()
        await channels.confirmed(b"a")
        gate = proxy.hold(b"PING", replies=True)
        waiting = asyncio.create_task(channels.barrier(60.0))
        await gate.reached()
        proxy.cut()
        async with asyncio.timeout(5.0):
            with pytest.raises(StoreUnavailableError):
                await waiting


def _reached(got: list[bytes | None], count: int) -> bool:
    return len(got) >= count


async def _listening(client: Client) -> Any:
    return await client.call("list", "CLIENT", "LIST", "TYPE", "pubsub")


async def _commands(client: Client) -> int:
    text: bytes = await client.call("info", "INFO", "stats")
    return int(text.partition(b"total_commands_processed:")[2].split()[0])


def _confirmed(channels: Channels) -> bool:
    return any(sub.confirmed.is_set() for sub in channels._wanted.values())


def _descriptors() -> int:
    folder = Path("/proc/self/fd") if Path("/proc/self/fd").exists() else Path("/dev/fd")
    return len(list(folder.iterdir()))
