"""The helpers of the wire work with every supported version of redis-py."""

from __future__ import annotations

import asyncio

from rxdispatch.config import StoreSettings
from rxdispatch.store.connections.connection import Connector
from rxdispatch.store.connections.wire import abort, exchange, pack, send, unread
from tests.servers import valkey_server


async def test_an_answered_connection_has_nothing_unread() -> None:
    """The reply was read, and nothing else has arrived."""
    async with valkey_server() as server:
        connector = Connector(server.target, StoreSettings())
        connection = connector.make()
        await connector.open(connection)
        assert b"PONG" == await exchange(connection, pack(("PING",)))
        assert not unread(connection)
        abort(connection)


async def test_a_reply_that_arrived_is_unread() -> None:
    """The reply is in the stream, and the parser has not seen it."""
    async with valkey_server() as server:
        connector = Connector(server.target, StoreSettings())
        connection = connector.make()
        await connector.open(connection)
        await send(connection, pack(("PING",)))
        async with asyncio.timeout(10):
            while not unread(connection):
                await asyncio.sleep(0)
        abort(connection)


async def test_a_reply_in_the_parser_is_unread() -> None:
    """The parser has read more than the expected reply."""
    async with valkey_server() as server:
        connector = Connector(server.target, StoreSettings())
        connection = connector.make()
        await connector.open(connection)
        both = pack(("ECHO", "first")) + pack(("ECHO", "second"))
        assert b"first" == await exchange(connection, both)
        async with asyncio.timeout(10):
            while not unread(connection):
                await asyncio.sleep(0)
        abort(connection)


async def test_the_end_of_a_connection_is_unread() -> None:
    """The server has closed the connection."""
    async with valkey_server() as server:
        connector = Connector(server.target, StoreSettings())
        connection, other = connector.make(), connector.make()
        await connector.open(connection)
        await connector.open(other)
        number = await exchange(connection, pack(("CLIENT", "ID")))
        await exchange(other, pack(("CLIENT", "KILL", "ID", number)))
        async with asyncio.timeout(10):
            while not unread(connection):
                await asyncio.sleep(0)
        assert connection.is_connected
        abort(connection)
        abort(other)


async def test_no_round_trip_tells_the_name_of_the_library() -> None:
    """The connection never sends CLIENT SETINFO."""
    async with valkey_server() as server:
        connector = Connector(server.target, StoreSettings())
        connection = connector.make()
        await connector.open(connection)
        told = await exchange(connection, pack(("CLIENT", "LIST")))
        assert b" lib-name= lib-ver=" in told
        stats = await exchange(connection, pack(("INFO", "commandstats")))
        assert b"setinfo" not in stats
        abort(connection)
