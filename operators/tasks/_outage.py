"""``Outage``: whether a server is unreachable, logged when that begins and when it ends."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rxdispatch.errors import StoreUnavailableError

__all__ = ["Outage"]

T = TypeVar("T")


class Outage:
    """
    The outages that one operator meets. An outage is logged once, however many calls it fails.

    Args:
        on_begin: Logs the begin of an outage; called with the text of the error.
        on_end: Logs that the server answers again.

    Attributes:
        lasts: Whether the last call found no server.
    """

    __slots__ = ("_on_begin", "_on_end", "lasts")

    def __init__(self, on_begin: Callable[[str], None], on_end: Callable[[], None]) -> None:
        self._on_begin = on_begin
        self._on_end = on_end
        self.lasts = False

    def failed(self, error: StoreUnavailableError) -> None:
        """A call has found no server."""
        if not self.lasts:
            self._on_begin(str(error))
        self.lasts = True

    def answered(self) -> None:
        """A call was answered."""
        if self.lasts:
            self.lasts = False
            self._on_end()

    async def until_answered(
        self, call: Callable[[], Awaitable[T]], least: float, most: float
    ) -> T:
        """Repeat *call*, with pauses of *least* to *most* seconds, until the server answers."""
        while True:
            try:
                reply = await call()
                break
            except StoreUnavailableError as error:
                self.failed(error)
                await asyncio.sleep(random.uniform(least, most))
        self.answered()
        return reply
