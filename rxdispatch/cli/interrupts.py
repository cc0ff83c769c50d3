"""``Interrupts``: what Ctrl-C and SIGTERM do, first gently, then at once."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final, Self

from rxdispatch.streams import KillSwitch

__all__ = ["Interrupts"]

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupts:
    """
    Signal handlers while a block runs; a context manager, for the main thread.

    The first signal drains :attr:`switch`, the second cancels the task that entered the block,
    the third does what it would without this.

    Args:
        grace: Seconds that running work gets to end.
        told: Called at the first signal.

    Attributes:
        switch: Its gates end streams.
        first: The first signal that came, if any.
        aborted: The second, if any.
    """

    def __init__(self, grace: float, told: Callable[[signal.Signals], None]) -> None:
        self.switch = KillSwitch()
        self.first: signal.Signals | None = None
        self.aborted: signal.Signals | None = None
        self._grace = grace
        self._told = told
        self._task: asyncio.Task[object] | None = None
        self._draining: asyncio.Task[bool] | None = None

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._came, number)
        return self

    def __exit__(self, *_: object) -> None:
        self._forget()
        if self._draining is not None:
            self._draining.cancel()

    def _came(self, number: signal.Signals) -> None:
        if self.first is None:
            self.first = number
            self._draining = asyncio.get_running_loop().create_task(self.switch.drain(self._grace))
            self._told(number)
        else:
            self.aborted = number
            self._forget()
            if self._task is not None:
                self._task.cancel()

    def _forget(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
