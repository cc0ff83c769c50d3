"""``ThrottledWarning``: a warning that is logged at most once a second."""

from __future__ import annotations

import asyncio
from asyncio import events
from contextvars import Context
from typing import Any, Final

__all__ = ["ThrottledWarning"]

SPACING: Final = 1.0
"""Seconds between two log entries."""


class ThrottledWarning:
    """
    A log entry for the first of many events, then one entry for each second with more of them.

    Any process may publish on a channel, and an entry for each message would fill the disk.

    Args:
        log: The logger of the module.
        event: The name of the log event; its keys are ``count`` and ``error``, the latest error.
    """

    __slots__ = ("_count", "_error", "_event", "_log", "_loop", "_timer")

    def __init__(self, log: Any, event: str) -> None:
        self._log = log
        self._event = event
        self._count = 0
        self._error = ""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None

    def tell(self, error: str, count: int = 1) -> None:
        """Log *count* events, now or within a second; at once if no loop runs."""
        self._count += count
        self._error = error
        loop = events._get_running_loop()
        if loop is None or self._timer is None or self._loop is not loop:
            self._loop = loop
            self._write()

    def _write(self) -> None:
        count, self._count = self._count, 0
        if not count:
            self._timer = self._loop = None
            return
        if self._loop is not None:
            self._timer = self._loop.call_later(SPACING, self._write, context=Context())
        self._log.warning(self._event, count=count, error=self._error)
