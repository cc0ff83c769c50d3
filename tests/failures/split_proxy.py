"""A proxy that treats the Pub/Sub connections of its clients apart from the others."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal

from tests.proxy import Proxy

__all__ = ["Part", "SplitProxy"]

Part = Literal["messages", "commands", "both"]


class _Seen:
    """A reader that calls a function with what it reads."""

    def __init__(self, reader: asyncio.StreamReader, see: Callable[[bytes], None]) -> None:
        self._reader = reader
        self._see = see

    async def read(self, most: int) -> bytes:
        data = await self._reader.read(most)
        self._see(data)
        return data


class SplitProxy(Proxy):
    """
    A proxy that cuts or holds the connection for messages, the others, or both.

    ::

        async with SplitProxy(server.target) as proxy:
            proxy.stall("messages")  # what the server publishes waits in the proxy
            proxy.resume()
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._subscribed: set[Any] = set()
        self._stalled: Part | None = None
        self._resumed = asyncio.Event()
        self.waiting = 0

    def cut_part(self, part: Part) -> None:
        """Cut connections; the client may connect again."""
        for link in tuple(self._links):
            if self._is_of(link, part):
                link.cut()

    def stall(self, part: Part) -> None:
        """Hold what passes in both directions, until :meth:`resume`."""
        self._stalled = part
        self._resumed.clear()

    def resume(self) -> None:
        """Pass on what was held."""
        self._stalled = None
        self._resumed.set()

    async def __aexit__(self, *_: object) -> None:
        self.resume()
        await super().__aexit__()

    def _is_of(self, link: Any, part: Part) -> bool:
        return part == "both" or (link in self._subscribed) == (part == "messages")

    async def _requests(self, reader: Any, link: Any) -> None:
        def see(data: bytes) -> None:
            if b"\r\nSUBSCRIBE\r\n" in data:
                self._subscribed.add(link)

        try:
            await super()._requests(_Seen(reader, see), link)  # type: ignore[arg-type]
        finally:
            self._subscribed.discard(link)

    async def _passes(self, link: Any) -> None:
        await super()._passes(link)
        while self._stalled is not None and self._is_of(link, self._stalled):
            self.waiting += 1
            try:
                await self._resumed.wait()
            finally:
                self.waiting -= 1
