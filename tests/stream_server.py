"""``StreamServer``: a small server for tests, whose connections end with it."""

from __future__ import annotations

import asyncio
from typing import Final, Self

__all__ = ["StreamServer"]

_LIMIT: Final = 1 << 22
"""Bytes that a line may have."""


class StreamServer:
    """
    Listens on a port of 127.0.0.1; ``serve`` of the subclass serves one connection.

    A connection is cut when ``serve`` returns or the client hangs up, and when the block ends.
    """

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def listen(self) -> asyncio.Server:
        """Start to listen."""
        server = await asyncio.start_server(self.accept, "127.0.0.1", 0, limit=_LIMIT)
        self.port: int = server.sockets[0].getsockname()[1]
        return server

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self.serve(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()
            self._tasks.discard(task)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a connection until this returns."""
        raise NotImplementedError
