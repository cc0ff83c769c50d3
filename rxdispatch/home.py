"""``Home``: the event loop that an object belongs to."""

from __future__ import annotations

import asyncio
from asyncio import events

from rxdispatch.errors import ConfigError

__all__ = ["Home"]

_running = events._get_running_loop


class Home:
    """
    The event loop that a hub and all that it has made belong to: the first that it is used in.

    What asyncio offers wakes nobody in another loop, and a connection that was opened in one loop
    breaks in another. So use from elsewhere is refused before it changes anything.

    Args:
        what: What the object is called in the error.

    Example:
        >>> Home("board 'jobs'").check()
        Traceback (most recent call last):
        rxdispatch.errors.ConfigError: board 'jobs' must be used in a running event loop
    """

    __slots__ = ("_loop", "_what")

    def __init__(self, what: str) -> None:
        self._what = what
        self._loop: asyncio.AbstractEventLoop | None = None

    def check(self) -> None:
        """
        Refuse a caller that runs elsewhere; the first one settles where that is.

        Raises:
            ConfigError: If the caller runs in another event loop, or in none.
        """
        loop = _running()
        if loop is None or loop is not self._loop:
            self._settle(loop)

    def _settle(self, loop: asyncio.AbstractEventLoop | None) -> None:
        if loop is None and self._loop is None:
            raise ConfigError(f"{self._what} must be used in a running event loop")
        if self._loop is not None:
            raise ConfigError(
                f"{self._what} must be used in the event loop that it belongs to; from a thread or"
                " another loop call asyncio.run_coroutine_threadsafe(coroutine, its_loop).result()"
            )
        self._loop = loop
