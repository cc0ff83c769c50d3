"""``WaitGroup``: counts the coroutines at work, and waits until there are none."""

from __future__ import annotations

import asyncio

__all__ = ["WaitGroup"]


class WaitGroup:
    """
    Counts the coroutines at work, as Go's ``sync.WaitGroup`` does.

    Attributes:
        active: How many are at work; a coroutine adds itself at its start.
    """

    __slots__ = ("_idle", "active")

    def __init__(self) -> None:
        self.active = 0
        self._idle: asyncio.Future[None] | None = None

    def done(self) -> None:
        """Count one coroutine as done."""
        self.active -= 1
        if self._idle is not None and not self.active and not self._idle.done():
            self._idle.set_result(None)

    async def wait(self) -> None:
        """Wait until no coroutine is at work."""
        while self.active:
            if self._idle is None or self._idle.done():
                self._idle = asyncio.get_running_loop().create_future()
            # Several callers may wait, and a cancelled one must not cancel the future for the rest.
            await asyncio.wait({self._idle})
