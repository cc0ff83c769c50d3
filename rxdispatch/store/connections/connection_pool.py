"""``ConnectionPool``: a bounded number of connections, lent out one call at a time."""

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
    Lends connections, at most *size* at once; who comes when none is left waits in line.

    redis-py's own blocking pool gives a connection back through a condition, that is an
    ``await``: a caller cancelled there loses the connection for good. Here giving back is
    synchronous, and a connection whose call did not end in a whole reply is closed, so that
    nobody reads an answer meant for another.

    Args:
        connector: Makes the connections.
        size: How many at most.
    """

    def __init__(self, connector: Connector, size: int) -> None:
        self._connector = connector
        self._slots = asyncio.Semaphore(size)
        # Last in, first out: what is not needed ages at the bottom.
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
            # The server may have closed it meanwhile; data that nobody asked for is as bad.
            if connection.is_connected and not unread(connection):
                return connection
            abort(connection)
        return None

    def give_back(self, connection: AbstractConnection, *, clean: bool) -> None:
        """Return a connection; *clean* tells that the reply to its last command was read."""
        try:
            self._lent.discard(connection)
            if clean and not self.closed:
                self._idle.append(connection)
            else:
                abort(connection)
        finally:
            self._slots.release()

    async def close(self) -> None:
        """Close what is idle, cut off what is lent."""
        self.closed = True
        idle, self._idle = self._idle, []
        call_each(partial(abort, connection) for connection in (*self._lent, *idle))
        # The descriptors are closed in the next round of the loop.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
