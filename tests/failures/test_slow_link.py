"""Payloads that take longer to transfer than a call may take."""

from __future__ import annotations

import asyncio

import pytest

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.store.client import Client
from tests.proxy import Proxy
from tests.servers import valkey_server

HASTY = rxd.StoreSettings(timeout=0.4, attempt_timeout=0.2)
PATIENT = rxd.Settings(grace=0.0, store=rxd.StoreSettings(timeout=60.0, attempt_timeout=60.0))
RATE = 1_000_000.0


async def test_an_answer_that_still_comes_is_waited_for() -> None:
    """A megabyte takes twice as long as the limit, and the request is not repeated."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, HASTY)
        await client.call("set", "SET", "k", b"x" * 10)
        await client.call("grow", "SETRANGE", "k", 900_000, b"x")
        proxy.slow_down(RATE)
        assert 900_001 == len(await client.call("get", "GET", "k"))
        assert 1 == proxy.accepted
        await client.close()


async def test_a_request_that_still_goes_out_is_waited_for() -> None:
    """Progress in sending counts like progress in receiving."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        # The client cannot see progress of bytes that the proxy holds.
        client = Client(proxy.target, rxd.StoreSettings(timeout=0.8, attempt_timeout=0.8))
        await client.open()
        proxy.slow_down(RATE)
        await client.call("set", "SET", "k", b"x" * 2_000_000)
        assert 1 == proxy.accepted
        proxy.heal()
        assert 2_000_000 == await client.call("size", "STRLEN", "k")
        await client.close()


async def test_an_answer_that_stops_coming_is_given_up() -> None:
    """The limit counts from the last byte, so a reply that stops is given up."""
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(proxy.target, HASTY)
        await client.call("set", "SET", "k", b"x" * 900_000)
        proxy.slow_down(RATE)
        answer = asyncio.create_task(client.call("get", "GET", "k"))
        await asyncio.sleep(0.3)
        proxy.blackhole()
        with pytest.raises(rxd.StoreUnavailableError, match="did not answer in time") as caught:
            async with asyncio.timeout(30):
                await answer
        assert caught.value.maybe_executed
        await client.close()


async def test_an_answer_of_hours_is_given_up() -> None:
    """A call takes at most ten times the limit, even if bytes keep coming."""
    settings = rxd.StoreSettings(timeout=0.1, attempt_timeout=0.1)
    async with valkey_server() as server, Proxy(server.target) as proxy:
        client = Client(server.target, rxd.StoreSettings())
        await client.call("set", "SET", "k", b"x" * 900_000)
        await client.close()
        client = Client(proxy.target, settings)
        await client.open()
        proxy.slow_down(200_000)
        with pytest.raises(rxd.StoreUnavailableError):
            async with asyncio.timeout(30):
                await client.call("get", "GET", "k")
        await client.close()


async def test_a_worker_behind_a_slow_link_gets_everything_done() -> None:
    """If a claim fails at ten times the limit, the next one asks for half as many tasks."""
    settings = rxd.Settings(grace=0.0, store=rxd.StoreSettings(timeout=0.1, attempt_timeout=0.1))
    done: set[str] = set()

    async def handle(task: rxd.Task[str]) -> None:
        done.add(task.id)

    async with valkey_server() as server, Proxy(server.target) as proxy:
        async with rxd.connect(server.target.safe, settings=PATIENT) as near:
            await near.board("jobs").submit(rxd.Task("x" * 200_000, id=f"t{n}") for n in range(12))
        async with rxd.connect(proxy.target.safe, settings=settings) as far:
            # A claim of all tasks takes 2.4 s, and a call may take 1 s; a claim of four comes
            # through.
            proxy.slow_down(RATE)
            board = far.board("jobs")
            async with asyncio.timeout(60):
                await rxd.run(
                    board.claims(until="joined", prefetch=12).pipe(
                        ops.execute(handle, max_concurrent=12), ops.settle(board)
                    )
                )
            counts = await board.counts()
    assert 12 == counts.done == len(done)


async def test_submits_over_a_slow_link_become_smaller() -> None:
    """A repeated submit that did not come through is sent in smaller chunks."""
    settings = rxd.Settings(grace=0.0, store=rxd.StoreSettings(timeout=0.1, attempt_timeout=0.1))
    tasks = [rxd.Task("x" * 100_000, id=f"t{n}") for n in range(24)]
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        rxd.connect(proxy.target.safe, settings=settings) as far,
    ):
        proxy.slow_down(RATE)
        board = far.board("jobs")
        failed = 0
        async with asyncio.timeout(60):
            while True:
                try:
                    await board.submit(tasks)
                    break
                except rxd.StoreUnavailableError:
                    failed += 1
        assert 24 == (await board.counts()).ready
        assert failed > 0
