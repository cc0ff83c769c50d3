"""``Gate``: holds requests or replies in a proxy until a test opens it."""

from __future__ import annotations

import asyncio
from typing import Final

__all__ = ["Gate"]

# How many seconds a test waits; far more than a busy machine needs.
_PATIENCE: Final = 30.0

# A server that does not have the script sends this reply to EVALSHA; the client sends EVAL next.
_UNKNOWN: Final = b"-NOSCRIPT"


class Gate:
    """
    Holds the next requests with one command, or the replies to them, and lets all others pass.

    Requests behind a held one on the same connection wait too.

    Args:
        command: The command, such as ``b"PING"``; ``b"EVALSHA"`` includes EVAL. None holds all.
        replies: Let the server execute the request, and hold the reply.
        count: How many to hold; None holds all until the gate is opened.
    """

    def __init__(self, command: bytes | None, *, replies: bool, count: int | None) -> None:
        self.replies = replies
        self.held = 0
        names = (b"EVALSHA", b"EVAL") if command == b"EVALSHA" else (command,)
        self._marks = [b"\r\n" + name + b"\r\n" for name in names if name is not None]
        self._count = count
        self._came = asyncio.Event()
        self._opened = asyncio.Event()

    async def reached(self, count: int = 1) -> None:
        """
        Wait until the gate has held *count* in total.

        Raises:
            TimeoutError: If they do not all arrive within half a minute.
        """
        async with asyncio.timeout(_PATIENCE):
            while self.held < count:
                self._came.clear()
                await self._came.wait()

    def open(self) -> None:
        """Release everything that is held, and hold nothing from now on."""
        self._opened.set()

    def wants(self, request: bytes) -> bool:
        """Return whether the gate holds *request*, given as packed bytes, or the reply to it."""
        if self._shut() and self._marks:
            upper = request.upper()
            return any(mark in upper for mark in self._marks)
        return self._shut()

    def wants_reply(self, reply: bytes) -> bool:
        """Return whether the gate holds *reply*, which answers a request that the gate wanted."""
        return self._shut() and not reply.startswith(_UNKNOWN)

    async def hold(self) -> None:
        """Wait until the gate is open."""
        self.held += 1
        self._came.set()
        await self._opened.wait()

    def _shut(self) -> bool:
        full = self._count is not None and self.held >= self._count
        return not (full or self._opened.is_set())
