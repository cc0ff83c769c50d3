"""``Until``: work that runs until Ctrl-C, and the clean-up after it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Self

from rxdispatch.cli.interrupts import Interrupts

__all__ = ["Until"]


class Until:
    """
    A context manager that ends an inner block at the first signal and everything at the second.

    ::

        with Until(say_so) as until:
            async with until.stopped(duration):
                ...  # cancelled at the first signal, or after so many seconds
            ...  # cleans up; cancelled at the second signal, which exits with 128 + its number

    Args:
        on_signal: Called at the first signal.
    """

    def __init__(self, on_signal: Callable[[], None] | None = None) -> None:
        self._interrupts = Interrupts(0.0, self._first)
        self._on_signal = on_signal
        self._scope: asyncio.Timeout | None = None

    @asynccontextmanager
    async def stopped(self, duration: float | None = None) -> AsyncGenerator[None]:
        """Run a block that a signal or the *duration* in seconds ends without an error."""
        # If a signal came before the block, the block ends at its first await.
        limit = duration if self._interrupts.first is None else 0.0
        self._scope = asyncio.timeout(limit)
        try:
            async with self._scope:
                yield
        except TimeoutError:
            if not self._scope.expired():
                raise

    def __enter__(self) -> Self:
        self._interrupts.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._interrupts.__exit__(kind, error, traceback)
        number = self._interrupts.aborted
        if isinstance(error, asyncio.CancelledError) and number is not None:
            raise SystemExit(128 + number) from None

    def _first(self, _: signal.Signals) -> None:
        if self._scope is not None:
            # The block may have ended, or be about to end.
            with suppress(RuntimeError):
                self._scope.reschedule(asyncio.get_running_loop().time())
        if self._on_signal is not None:
            self._on_signal()
