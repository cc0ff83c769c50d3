"""``LapseTimer``: a single timer for the ttls of all nodes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

__all__ = ["LapseTimer"]


class LapseTimer:
    """
    Calls a function when the next ttl runs out.

    INVARIANT. A timer is set as long as a ttl was announced that the function has not handled. A
    timer may fire slightly early, so the function announces the next ttl each time it is called.
    """

    def __init__(self) -> None:
        self._lapse: Callable[[], None] = lambda: None
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    def on_lapse(self, lapse: Callable[[], None]) -> None:
        """Set the function to call; it marks the nodes whose ttl has run out as suspect."""
        self._lapse = lapse

    def announce(self, at: float) -> None:
        """Fire at *at*, on the loop's clock, unless an earlier time was announced."""
        if self._closed or (self._timer is not None and self._timer.when() <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_at(at, self._fire)

    def close(self) -> None:
        """Cancel the timer; later announcements set none."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self._lapse()
