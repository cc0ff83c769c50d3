"""``TimedTurn``: the timed part of a worker."""

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
    The timed part of a worker: the body of the ``with``.

    Entering reports that the worker is ready, and waits for the moment at which all begin; leaving
    reports what was spent, and waits until memory has been read.

    Args:
        line: The connection to the process that measures.
        me: The worker's number, from 1.
        ready: What to send when the worker is ready.
    """

    def __init__(self, line: Connection[Any, Any], me: int = 1, ready: float = 0.0) -> None:
        self.me = me
        self._line = line
        self._ready = ready

    def __enter__(self) -> Self:
        """Begin at the same moment as the other workers."""
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
        """Report what was spent, unless the work failed."""
        cpu, ended = time.process_time() - self._cpu, time.monotonic()
        if kind is None:
            self._line.send(Spent(self._begun, ended, cpu))
            self._line.recv()
