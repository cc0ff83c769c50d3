"""``StuckSlots``: warns when every slot is held by a call that does not return."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Final

from rxdispatch.log import get_logger

__all__ = ["StuckSlots"]

log = get_logger(__name__)

AGAIN: Final = 60.0
"""Seconds between two warnings."""


class StuckSlots:
    """
    Warns while all slots of ``execute`` are held by calls that have timed out.

    A thread cannot be stopped. A worker whose threads all hang claims nothing and looks idle.

    Args:
        handler: The name of the handler.
        slots: How many slots there are.
        stuck: Returns how many are held by such calls.
        context: The timer runs in a copy of it.
    """

    def __init__(
        self, handler: str, slots: int, stuck: Callable[[], int], context: Context
    ) -> None:
        self._handler = handler
        self._slots = slots
        self._stuck = stuck
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def look(self) -> None:
        """Warn if the last slot has just been taken; stop once a slot is free."""
        if self._stuck() < self._slots:
            self.close()
        elif self._timer is None:
            self._since = self._loop.time()
            self._warn()

    def close(self) -> None:
        """Stop warning."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _warn(self) -> None:
        log.warning(
            "slots_stuck",
            handlers=self._handler,
            slots=self._slots,
            seconds=round(self._loop.time() - self._since, 1),
            rule="a function in a thread must return; nothing else can run",
        )
        self._timer = self._loop.call_later(AGAIN, self._warn, context=self._context.copy())
