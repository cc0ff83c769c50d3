"""``TimedTurn``: a part of the work that begins when it is told, and tells what it took."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Self

import attrs

__all__ = ["Spent", "TimedTurn", "wait_until"]


@attrs.frozen
class Spent:
    """When work began and ended by the clock that all processes share, and its CPU seconds."""

    begun: float
    ended: float
    cpu: float


def wait_until(moment: float) -> None:
    """Sleep until that time of the monotonic clock."""
    time.sleep(max(0.0, moment - time.monotonic()))


class TimedTurn:
    """
    What is timed of a worker: the body of the ``with``.

    Entering tells that the worker is ready, and waits for the moment at which all begin; leaving
    tells what was spent, and waits until memory has been read.

    Args:
        line: To whoever times.
        me: The worker's number, from 1.
        ready: What to say when ready.
    """

    def __init__(self, line: Connection[Any, Any], me: int = 1, ready: float = 0.0) -> None:
        self.me = me
        self._line = line
        self._ready = ready

    def __enter__(self) -> Self:
        """Begin with the others."""
        self._line.send(self._ready)
        wait_until(self._line.recv())
        self._begun, self._cpu = time.monotonic(), time.process_time()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tell what it took, unless it failed."""
        cpu, ended = time.process_time() - self._cpu, time.monotonic()
        if kind is None:
            self._line.send(Spent(self._begun, ended, cpu))
            self._line.recv()
