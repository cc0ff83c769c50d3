"""``DispatchWay``: one way to dispatch tasks to workers."""

from __future__ import annotations

import multiprocessing
from typing import ClassVar, Final

from benchmarks.dispatch_ways.runs import Runs
from benchmarks.dispatch_ways.timed_turn import TimedTurn

__all__ = ["CONTEXT", "WORKERS", "DispatchWay"]

WORKERS: Final = 4
CONTEXT: Final = multiprocessing.get_context("fork")


class DispatchWay:
    """
    A way to dispatch tasks: :meth:`fill` puts them somewhere, and :meth:`work` takes them.

    A measurement calls :meth:`prepare`, forks the workers, calls :meth:`fill` once they are all
    ready, lets them begin while it calls :meth:`feed`, and ends with :meth:`close`.

    Attributes:
        count: The number of tasks.
        workers: The number of processes; 0 if the process that fills also works.
    """

    workers: ClassVar[int] = WORKERS
    count: int = 0

    def prepare(self) -> None:
        """Make what the workers inherit."""

    def fill(self) -> None:
        """Put the tasks where the workers take them."""

    def feed(self) -> None:
        """Put tasks while the workers work, if they cannot all be put before."""

    def work(self, turn: TimedTurn, runs: Runs) -> None:
        """Take tasks, in the body of *turn*, until there are no more."""
        raise NotImplementedError

    def servers(self) -> list[int]:
        """Return the ids of server processes that take part."""
        return []

    def close(self) -> None:
        """Release everything; may be called at any time."""
