"""``LapseTimer``: one timer for the ttls of all nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["LapseTimer"]


class LapseTimer:
    """
    Calls *lapse* when the next ttl runs out.

    INVARIANT. A timer is set whenever a ttl was announced that *lapse* has not dealt with. A
    timer may fire a hair too soon, so *lapse* announces the next ttl again each time.

    Args:
        lapse: Suspects the nodes whose ttl has run out.
    """

    def __init__(self, lapse: Callable[[], None]) -> None:
        self._lapse = lapse
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def announce(self, at: float) -> None:
        """A ttl runs out at *at*, on the loop's clock."""
        if self._closed or (self._timer is not None and self._timer.when() <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._fire)

    def close(self) -> None:
        """Call no more."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._lapse()
