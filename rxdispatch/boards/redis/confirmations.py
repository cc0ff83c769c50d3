"""``Confirmations``: joins what is confirmed in one turn of the loop into one request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Final

from rxdispatch.boards.engine import CHUNK

__all__ = ["Confirmations"]

Held = Sequence[tuple[str, int]]
_Renew = Callable[[Held, float, Callable[[], None]], Awaitable[list[bool]]]


class Confirmations:
    """
    Confirms for all workers of a handle.

    A process may have many workers, and what the server hands to them often arrives together.

    Args:
        renew: A function that renews, and calls its last argument when the request is written.
    """

    def __init__(self, renew: _Renew) -> None:
        self._renew: Final = renew
        self._open: dict[float, _Batch] = {}

    async def add(self, held: Held, lease: float, on_written: Callable[[], None]) -> list[bool]:
        """Renew (id, token) pairs to *lease* seconds; call *on_written* when that is on its way."""
        batch = self._open.get(lease)
        if batch is None or len(batch.held) + len(held) > CHUNK:
            batch = self._open[lease] = _Batch()
            batch.sending = asyncio.get_running_loop().create_task(
                self._send(batch, lease), context=Context()
            )
        start = len(batch.held)
        batch.held += held
        batch.listeners.append(on_written)
        # Others wait for the same request.
        answers = await asyncio.shield(batch.sending)
        return answers[start : start + len(held)]

    async def _send(self, batch: _Batch, lease: float) -> list[bool]:
        if self._open.get(lease) is batch:
            del self._open[lease]
        return await self._renew(batch.held, lease, batch.written)


class _Batch:
    """The confirmations that share a request."""

    sending: asyncio.Task[list[bool]]

    def __init__(self) -> None:
        self.held: list[tuple[str, int]] = []
        self.listeners: list[Callable[[], None]] = []

    def written(self) -> None:
        for on_written in self.listeners:
            on_written()
