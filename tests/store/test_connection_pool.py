"""``ConnectionPool`` is bounded, and survives cancellation."""

from __future__ import annotations

import asyncio

import pytest

from rxdispatch.config import StoreSettings
from rxdispatch.store.connections.connection import Connector
from rxdispatch.store.connections.connection_pool import ConnectionPool
from rxdispatch.store.connections.wire import exchange, pack
from tests.servers import valkey_server


async def test_who_comes_too_late_waits() -> None:
    """A caller waits until its deadline, or until a connection is free."""
    loop = asyncio.get_running_loop()
    async with valkey_server() as server:
        pool = ConnectionPool(Connector(server.target, StoreSettings()), 1)
        first = await pool.take(loop.time() + 1)
        with pytest.raises(TimeoutError):
            await pool.take(loop.time() + 0.01)
        waiting = asyncio.create_task(pool.take(loop.time() + 1))
        await asyncio.sleep(0)
        pool.give_back(first, clean=False)
        pool.give_back(await waiting, clean=False)
        await pool.close()


async def test_a_cancelled_wait_takes_nothing() -> None:
    """The place goes to the next caller in line."""
    loop = asyncio.get_running_loop()
    async with valkey_server() as server:
        pool = ConnectionPool(Connector(server.target, StoreSettings()), 1)
        first = await pool.take(loop.time() + 1)
        one = asyncio.create_task(pool.take(loop.time() + 1))
        two = asyncio.create_task(pool.take(loop.time() + 1))
        await asyncio.sleep(0)
        pool.give_back(first, clean=False)
        one.cancel()
        pool.give_back(await two, clean=False)
        assert one.cancelled()
        await pool.close()


async def test_clean_connections_are_used_again() -> None:
    """Other connections are closed, and those that the server closed are replaced."""
    loop = asyncio.get_running_loop()
    async with valkey_server() as server:
        connector = Connector(server.target, StoreSettings())
        pool = ConnectionPool(connector, 4)
        first = await pool.take(loop.time() + 1)
        await connector.open(first)
        pool.give_back(first, clean=True)
        assert first is await pool.take(loop.time() + 1)
        # One of the two replies stays unread.
        await exchange(first, pack(("ECHO", "a")) + pack(("ECHO", "b")))
        await asyncio.sleep(0.02)
        pool.give_back(first, clean=True)
        second = await pool.take(loop.time() + 1)
        assert first is not second
        assert not first.is_connected
        pool.give_back(second, clean=False)
        await pool.close()
