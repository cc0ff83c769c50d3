"""``from_redis_list`` on real servers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from redis.exceptions import ResponseError

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.config import StoreSettings
from rxdispatch.store.client import Client
from rxdispatch.store.url import Target
from tests.proxy import Proxy
from tests.servers import Kind, any_server, valkey_server

ROOT = Path(__file__).parents[3]

QUICK = StoreSettings(timeout=1.0, attempt_timeout=0.3, ping_interval=0.2)


@asynccontextmanager
async def client_of(target: Target, settings: StoreSettings = QUICK) -> AsyncGenerator[Client]:
    """Open a client, and close it after the block."""
    client = Client(target, settings)
    try:
        yield client
    finally:
        await client.close()


async def fill(client: Client, *values: object) -> None:
    """Push *values* as a producer does."""
    await client.call("push", "RPUSH", "work", *map(str, values))


async def rest(client: Client) -> list[bytes]:
    """Return the entries of the list."""
    found: list[bytes] = await client.call("read", "LRANGE", "work", 0, -1)
    return found


async def keys(client: Client) -> set[bytes]:
    """Return all keys except the record of the last batch."""
    return set(await client.call("read", "KEYS", "*"))


async def until(condition: Any) -> None:
    """Wait until the coroutine function *condition* returns True."""
    async with asyncio.timeout(20):
        while not await condition():
            await asyncio.sleep(0.005)


async def left(client: Client, *wanted: bytes) -> None:
    """Wait until the server holds only the list, with the entries *wanted*."""

    async def only() -> bool:
        return await keys(client) == ({b"work"} if wanted else set())

    await until(only)
    assert [*wanted] == await rest(client)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_takes_settles_and_leaves(kind: Kind) -> None:
    """Each entry comes once and in order, even equal ones; then no key remains on the server."""
    async with any_server(kind) as target, client_of(target) as client:
        await fill(client, *range(20), 3, 3, 3)
        seen: list[bytes] = []

        async def handle(item: rxd.ListItem) -> bytes:
            assert await item.done()
            assert await item.done()
            assert await item.give_back()
            return item.value

        stream = rxd.from_redis_list(client, "work").pipe(
            ops.map_async(handle, max_concurrent=4), rx.take(23), rx.do_action(seen.append)
        )
        await rxd.run(stream)
        assert Counter([*range(20), 3, 3, 3]) == Counter(map(int, seen))
        await left(client)


async def test_a_slow_consumer_leaves_the_list_alone() -> None:
    """The stream takes no more than fits, and without a valve below, at most *prefetch*."""
    async with valkey_server() as server, client_of(server.target) as client:
        await fill(client, *range(50))
        go = asyncio.Event()

        async def handle(item: rxd.ListItem) -> None:
            await go.wait()
            await item.done()

        switch = rxd.KillSwitch()
        stream = rxd.from_redis_list(client, "work").pipe(
            switch.gate(), ops.map_async(handle, max_concurrent=3)
        )
        running = asyncio.create_task(rxd.run(stream))

        async def taken() -> bool:
            return len(await rest(client)) <= 47

        await until(taken)
        await asyncio.sleep(0.1)
        assert 47 == len(await rest(client))
        draining = asyncio.create_task(switch.drain(10))
        await asyncio.sleep(0)
        go.set()
        assert await draining
        await running
        await left(client, *(b"%d" % n for n in range(3, 50)))

        items: list[rxd.ListItem] = []
        subscription = rxd.from_redis_list(client, "work", prefetch=5).subscribe(items.append)

        async def five() -> bool:
            return len(items) == 5

        await until(five)
        await asyncio.sleep(0.1)
        assert 5 == len(items)
        subscription.dispose()
        items.clear()
        await left(client, *(b"%d" % n for n in range(3, 50)))


@pytest.mark.parametrize("side", ["left", "right"])
async def test_give_back_and_drop(side: Any) -> None:
    """Both put the entry back at the end it came from; dropping the item is enough."""
    async with valkey_server() as server, client_of(server.target) as client:
        await fill(client, *"abc")
        end = b"a" if side == "left" else b"c"
        stream = rxd.from_redis_list(client, "work", side=side, processing_key="mine")

        async def back(item: rxd.ListItem) -> bool:
            assert "<ListItem 1 bytes>" == repr(item)
            assert end == item.value
            assert {b"work", b"mine-workers"} < await keys(client)
            return await item.give_back()

        assert await rxd.run(stream.pipe(ops.map_async(back, max_concurrent=1), rx.take(1)))
        await left(client, b"a", b"b", b"c")
        assert end == await rxd.run(stream.pipe(rx.take(1), rx.map(value_of)))
        await left(client, b"a", b"b", b"c")


async def test_cancelled_while_it_waits_and_while_it_works() -> None:
    """Disposal at any time gives entries back; two workers share the list."""
    async with valkey_server() as server, client_of(server.target) as client:

        async def handle(item: rxd.ListItem) -> None:
            await asyncio.sleep(900)
            await item.done()

        def start() -> asyncio.Task[Any]:
            stream = rxd.from_redis_list(server.target.safe, b"work", settings=QUICK)
            return asyncio.create_task(
                rxd.run(stream.pipe(ops.map_async(handle, max_concurrent=2)))
            )

        workers = [start(), start()]
        await asyncio.sleep(0.1)
        await fill(client, *range(6))

        async def taken() -> bool:
            return len(await rest(client)) == 2

        await until(taken)
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        workers.clear()

        async def back() -> bool:
            return await keys(client) == {b"work"}

        await until(back)
        assert sorted(b"%d" % n for n in range(6)) == sorted(await rest(client))


async def test_kill_9() -> None:
    """After the lease, another worker gets the entries of a killed one, and none is lost."""
    async with valkey_server() as server, client_of(server.target) as client:
        await fill(client, *range(30))
        with subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.pipelines.redis_list.redis_list_worker",
                server.target.safe,
                "hold",
            ],
            stdout=subprocess.PIPE,
            cwd=ROOT,
        ) as worker:
            try:
                assert worker.stdout is not None
                for _ in range(8):
                    await asyncio.to_thread(worker.stdout.readline)
            finally:
                worker.kill()

        async def handle(item: rxd.ListItem) -> int:
            assert await item.done()
            return int(item.value)

        stream = rxd.from_redis_list(client, "work", lease=0.6).pipe(
            ops.map_async(handle), rx.take(30), rx.to_list()
        )
        async with asyncio.timeout(30):
            assert [*range(30)] == sorted(await rxd.run(stream) or [])
        assert [] == await rest(client)


@pytest.mark.parametrize("command", [None, b"BLMOVE", b"EVALSHA"])
async def test_cuts_and_lost_replies(command: bytes | None) -> None:
    """While connections are cut and replies lost, each entry is done, and none is lost."""
    async with (
        valkey_server() as server,
        client_of(server.target) as direct,
        Proxy(server.target) as proxy,
        client_of(proxy.target) as client,
    ):
        total = 150
        await fill(direct, *range(total))
        seen: Counter[int] = Counter()
        done = asyncio.Event()

        async def handle(item: rxd.ListItem) -> None:
            await asyncio.sleep(0.02)
            await item.done()
            seen[int(item.value)] += 1
            if len(seen) == total:
                done.set()

        async def trouble() -> None:
            while True:
                if command is None:
                    proxy.cut()
                else:
                    proxy.drop_replies(1, command)
                await asyncio.sleep(0.1)

        stream = rxd.from_redis_list(client, "work").pipe(ops.map_async(handle, max_concurrent=8))
        running = asyncio.create_task(rxd.run(stream))
        troubling = asyncio.create_task(trouble())
        async with asyncio.timeout(40):
            await done.wait()
        troubling.cancel()
        proxy.heal()
        assert (proxy.accepted > 4) if command is None else (proxy.dropped > 1)
        assert [1] * total == [*seen.values()]
        running.cancel()
        await asyncio.gather(running, troubling, return_exceptions=True)
        await left(direct)


async def test_a_worker_that_was_taken_for_dead_is_told() -> None:
    """Another worker has its entry, and its settlement is refused."""
    async with valkey_server() as server, client_of(server.target) as client:
        await fill(client, "a")
        items: list[rxd.ListItem] = []
        subscription = rxd.from_redis_list(client, "work", lease=900).subscribe(items.append)

        async def one() -> bool:
            return len(items) == 1

        await until(one)
        [name] = await client.call("read", "ZRANGE", "work:processing-workers", 0, -1)
        subscription.dispose()
        await client.call("age", "ZADD", "work:processing-workers", 1, name)
        stream = rxd.from_redis_list(client, "work").pipe(rx.take(1), rx.flat_map(finish))
        assert await rxd.run(stream)
        assert not await items[0].done()
        items.clear()
        await left(client)


def value_of(item: rxd.ListItem) -> bytes:
    """Return the entry of an item."""
    return item.value


def finish(item: rxd.ListItem) -> reactivex.Observable[bool]:
    """Return the answer of ``done`` as a stream."""
    return reactivex.from_future(asyncio.ensure_future(item.done()))


async def test_refusals() -> None:
    """A key that is not a list ends the stream with a readable error."""
    async with valkey_server() as server, client_of(server.target) as client:
        await client.call("set", "SET", "work", "text")
        with pytest.raises(rxd.ConfigError, match=r"^work: the server must accept the commands"):
            await rxd.run(rxd.from_redis_list(client, "work"))


@pytest.mark.parametrize(
    ("server", "options", "rule"),
    [
        (3, {}, "server must be a url or a Client"),
        ("memory://", {}, "the url must name a server"),
        ("redis://h", {"key": ""}, "key must be a str or bytes, not empty"),
        ("redis://h", {"processing_key": 3}, "processing_key must be a str or bytes"),
        ("redis://h", {"prefetch": 0}, "prefetch must be an int >= 1"),
        ("redis://h", {"side": "top"}, "side must be 'left' or 'right'"),
        ("redis://h", {"lease": 0}, "lease must be a finite number of seconds > 0"),
        ("redis://h", {"settings": 3}, "settings must be a StoreSettings object"),
    ],
)
def test_bad_arguments(server: Any, options: dict[str, Any], rule: str) -> None:
    """Bad arguments are refused at once."""
    arguments: dict[str, Any] = {"key": "work", **options}
    with pytest.raises(rxd.ConfigError, match=rule):
        rxd.from_redis_list(server, **arguments)


async def test_an_outage_only_delays() -> None:
    """Entries that are settled during an outage are written afterwards."""
    async with (
        valkey_server() as server,
        client_of(server.target) as direct,
        Proxy(server.target) as proxy,
        client_of(
            proxy.target, StoreSettings(timeout=0.2, attempt_timeout=0.1, ping_interval=0.1)
        ) as client,
    ):
        await fill(direct, *range(3))
        items: list[rxd.ListItem] = []
        subscription = rxd.from_redis_list(client, "work", prefetch=2).subscribe(items.append)

        async def two() -> bool:
            return len(items) == 2

        await until(two)
        proxy.blackhole()
        finishing = [asyncio.create_task(item.done()) for item in items]
        await asyncio.sleep(0.5)
        assert not any(task.done() for task in finishing)
        finishing.pop().cancel()
        proxy.heal()
        assert [True] == await asyncio.gather(*finishing)
        assert await items[1].done()

        async def three() -> bool:
            return len(items) == 3

        await until(three)
        assert await items[2].done()
        subscription.dispose()
        await left(direct)


async def test_a_refused_settlement_is_told() -> None:
    """The caller gets the server's message; the stream goes on."""
    async with valkey_server() as server, client_of(server.target) as client:
        await fill(client, "a")
        items: list[rxd.ListItem] = []
        subscription = rxd.from_redis_list(client, "work").subscribe(items.append)

        async def one() -> bool:
            return len(items) == 1

        await until(one)
        [name] = await client.call("read", "ZRANGE", "work:processing-workers", 0, -1)
        await client.call("break", "SET", b"work:processing:" + name, "text")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await items[0].done()
        await client.call("mend", "DEL", b"work:processing:" + name)
        subscription.dispose()
        await left(client)
