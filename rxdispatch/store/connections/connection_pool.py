"""``ConnectionPool``: a bounded number of connections, each lent for one call at a time."""

from __future__ import annotations

import asyncio
from functools import partial

from redis.asyncio.connection import AbstractConnection

from rxdispatch.listeners import call_each
from rxdispatch.store.connections.connection import Connector
from rxdispatch.store.connections.wire import abort, unread

__all__ = ["ConnectionPool"]


class ConnectionPool:
    """
    A pool that lends at most *size* connections at once; further callers wait in line.

    redis-py's own blocking pool takes a connection back with an ``await``, through a condition: a
    cancellation there loses the connection for good. Here returning a connection is synchronous.
    A connection whose call did not end in a whole reply is closed, so that no call reads the reply
    to another.

    Args:
        connector: Makes the connections.
        size: The most connections.
    """

    def __init__(self, connector: Connector, size: int) -> None:
        self._connector = connector
        self._slots = asyncio.Semaphore(size)
        # Last in, first out: connections that are not needed age at the bottom.
        self._idle: list[AbstractConnection] = []
        self._lent: set[AbstractConnection] = set()
        self.closed = False

    async def take(self, deadline: float) -> AbstractConnection:
        """
        Borrow a connection, open or not.

        Raises:
            TimeoutError: If none is free before *deadline*, a time on the loop's clock.
        """
        if self._slots.locked():
            async with asyncio.timeout_at(deadline):
                await self._slots.acquire()
        else:
            await self._slots.acquire()
        try:
            connection = self._reusable() or self._connector.make()
        except BaseException:
            self._slots.release()
            raise
        self._lent.add(connection)
        return connection

    def _reusable(self) -> AbstractConnection | None:
        while self._idle:
            connection = self._idle.pop()
            # The server may have closed it by now, or sent data that no call expects.
            if connection.is_connected and not unread(connection):
                return connection
            abort(connection)
        return None

    def give_back(self, connection: AbstractConnection, *, clean: bool) -> None:
        """Take back a connection; *clean* means that the reply to its last command was read."""
        try:
            self._lent.discard(connection)
            if clean and not self.closed:
                self._idle.append(connection)
            else:
                abort(connection)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Close idle connections and abort borrowed ones."""
        self.closed = True
        idle, self._idle = self._idle, []
        call_each(partial(abort, connection) for connection in (*self._lent, *idle))
        # The loop closes the descriptors in its next turn.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
