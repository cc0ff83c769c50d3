"""``Interrupts``: Ctrl-C or SIGTERM ends the work gracefully, a second signal at once."""

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
    Handlers of SIGINT and SIGTERM while a block runs; a context manager for the main thread.

    The first signal drains :attr:`switch`, the second cancels the task that entered the block, and
    the third has its default effect.

    Args:
        grace: Seconds that running work gets to end.
        on_signal: Called at the first signal.

    Attributes:
        switch: The switch that ends streams at its gates.
        first: The first signal, if any.
        aborted: The second signal, if any.
    """

    def __init__(self, grace: float, on_signal: Callable[[signal.Signals], None]) -> None:
        self.switch = KillSwitch()
        self.first: signal.Signals | None = None
        self.aborted: signal.Signals | None = None
        self._grace = grace
        self._on_signal = on_signal
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
            self._on_signal(number)
        else:
            self.aborted = number
            self._forget()
            if self._task is not None:
                self._task.cancel()

    def _forget(self) -> None:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
