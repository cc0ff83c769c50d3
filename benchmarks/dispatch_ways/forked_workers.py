"""``ForkedWorkers``: the worker processes of a measurement."""

from __future__ import annotations

import signal
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Self

from benchmarks.dispatch_ways.dispatch_way import CONTEXT, DispatchWay
from benchmarks.dispatch_ways.orphans import end_with_parent
from benchmarks.dispatch_ways.runs import Runs
from benchmarks.dispatch_ways.timed_turn import Spent, TimedTurn

__all__ = ["ForkedWorkers"]

_PATIENCE: Final = 5.0


class ForkedWorkers:
    """
    Forks the workers, and waits until each is ready; no worker is left after the ``with``.

    Raises:
        EOFError: If a worker failed; it has printed its traceback.
    """

    def __init__(self, way: DispatchWay, runs: Runs) -> None:
        self._lines: list[Connection[Any, Any]] = []
        self._processes: list[Any] = []
        self._way = way
        self._runs = runs

    def __enter__(self) -> Self:
        """Fork, and wait."""
        for me in range(1, self._way.workers + 1):
            mine, theirs = CONTEXT.Pipe()
            process = CONTEXT.Process(
                target=_work, args=(self._way, me, theirs, self._runs), daemon=True
            )
            process.start()
            theirs.close()
            self._lines.append(mine)
            self._processes.append(process)
        self._hear()
        return self

    def begin(self, moment: float) -> None:
        """Start all workers at that time of the monotonic clock."""
        for line in self._lines:
            line.send(moment)

    def spent(self) -> list[Spent]:
        """Wait until all workers are done, and return what each has spent."""
        return self._hear()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers, by force if something failed."""
        for line in self._lines:
            if kind is None:
                line.send(None)
            line.close()
        for process in self._processes:
            if kind is None:
                process.join(_PATIENCE)
            process.kill()
            process.join()

    def _hear(self) -> list[Any]:
        return [line.recv() for line in self._lines]


def _work(way: DispatchWay, me: int, line: Connection[Any, Any], runs: Runs) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    end_with_parent(signal.SIGKILL)
    way.work(TimedTurn(line, me), runs)
