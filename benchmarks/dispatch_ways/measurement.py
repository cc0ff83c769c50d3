"""``WayMeasurement``: measures a way to dispatch in a process of its own, watched from outside."""

from __future__ import annotations

import multiprocessing
import time
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Self

import attrs

from benchmarks.dispatch_ways.dispatch_way import DispatchWay
from benchmarks.dispatch_ways.stage import stage
from benchmarks.dispatch_ways.timed_turn import Spent
from benchmarks.support.usage import WINDOW, Watch

__all__ = ["Round", "WayMeasurement"]

# Time for all workers to receive the moment at which they begin.
_NOTICE: Final = 0.01
_PATIENCE: Final = 5.0


@attrs.frozen
class Round:
    """
    The cost of a round.

    Attributes:
        seconds: From the first take to the last.
        fill: Seconds that it took to put the tasks there before.
        cpu: CPU seconds of all processes, from the first take to the last.
        cpu_peak: The highest use of CPU at any time, in percent of one core.
        memory: The highest growth in any round so far, in MiB, since before tasks and workers
            existed.
        twice: The number of tasks done more than once.
        missing: The number of tasks never done.
    """

    seconds: float
    fill: float
    cpu: float
    cpu_peak: float
    memory: float
    twice: int
    missing: int


class WayMeasurement:
    """
    Measures a way to dispatch; no process is left after the ``with``.

    Args:
        way: The way.
        count: The number of tasks.

    Attributes:
        rounds: The rounds so far.
    """

    def __init__(self, way: DispatchWay, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        line, theirs = context.Pipe()
        self.rounds: list[Round] = []
        self._spent: Spent | None = None
        self._name = f"{type(way).__name__} with {count} tasks"
        self._process = context.Process(target=stage, args=(theirs, way, count))
        self._theirs = theirs
        self._line: Connection[Any, Any] = line

    def __enter__(self) -> Self:
        """Start the process."""
        try:
            self._process.start()
            self._theirs.close()
            self._hear()
            assert self._process.pid is not None
            self._watch = Watch(self._process.pid)
        except BaseException:
            self._end()
            raise
        return self

    def prepare(self) -> None:
        """Finish the previous round, and make workers and tasks ready."""
        if self._spent is not None:
            self.finish()
        self._line.send(None)
        while not self._line.poll(WINDOW):
            self._watch.find()
            self._watch.look()
        self._fill: float = self._hear()

    def run(self) -> None:
        """Run the tasks."""
        self._watch.begin()
        self._line.send(time.monotonic() + _NOTICE)
        while not self._line.poll(WINDOW):
            self._watch.look()
        self._spent = self._hear()

    def finish(self) -> None:
        """End the workers, and record the round."""
        watch, spent = self._watch, self._spent
        assert spent is not None
        self._spent = None
        watch.look()
        self._line.send(None)
        twice, missing = self._hear()
        seconds = spent.ended - spent.begun
        # If a round ends before the first look, its peak is at least its mean.
        peak = max(watch.cpu_peak, 100 * spent.cpu / seconds)
        self.rounds.append(
            Round(seconds, self._fill, spent.cpu, peak, watch.growth, twice, missing)
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the process."""
        self._end()

    def _hear(self) -> Any:
        try:
            return self._line.recv()
        except EOFError:
            raise RuntimeError(f"{self._name} must not fail; it printed why") from None

    def _end(self) -> None:
        self._line.close()
        if self._process.pid is None:
            return
        # While it waits for a round, the closed line ends it. Otherwise SIGTERM makes it end its
        # workers first.
        self._process.join(0.2 if self.rounds else 0)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(_PATIENCE)
        self._process.kill()
        self._process.join()
        self._process.close()
