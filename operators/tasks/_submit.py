"""The ``submit`` operator: put tasks on a board, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from typing import Any

from reactivex import Observable, abc

from rxdispatch.checks import integer
from rxdispatch.clock import valve_of
from rxdispatch.operators.tasks._demand import Overfull
from rxdispatch.operators.tasks._gated import gated
from rxdispatch.protocols import BoardLike
from rxdispatch.results import SubmitResult
from rxdispatch.seconds import seconds
from rxdispatch.task import Task
from rxdispatch.valve import Gate

__all__ = ["submit"]


def submit(
    board: BoardLike, *, count: int = 256, timespan: float | timedelta = 0.002
) -> Callable[[Observable[Task[Any]]], Observable[SubmitResult]]:
    """
    Put each task on *board* and emit one result for each batch that was written.

    ::

        --t1-t2-t3------t4--|
        [   submit(board)   ]
        -----------r-------r|

    Args:
        board: Where to put them.
        count: Tasks in one write, at least 1.
        timespan: Seconds a task waits for others, more than 0.

    Raises:
        ConfigError: If an argument breaks its rule.

    Batches are written one after the other, so that tasks keep their order; what comes meanwhile
    is held, and the valve, of 4 times *count* tasks, closes. A task that cannot be stored, a full
    board or a server that does not answer end the stream with that error. Disposal drops what is
    not written. Completion writes what is held first.
    """
    integer("count", count)
    span = seconds("timespan", timespan, zero=False)

    return gated(lambda observer, scheduler: _Submitter(board, count, span, observer, scheduler))


class _Submitter:
    """One subscription."""

    def __init__(
        self,
        board: BoardLike,
        count: int,
        timespan: float,
        observer: abc.ObserverBase[SubmitResult],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self._board = board
        self._count = count
        self._span = timespan
        self._observer = observer
        self._loop = asyncio.get_running_loop()
        self._home = copy_context()
        self._held: list[Task[Any]] = []
        self._batch: list[Task[Any]] = []  # what is being written
        self._writing = 0
        self._write: asyncio.Task[SubmitResult] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = False
        self._done = False
        self._error: Exception | None = None
        self._stopped = False
        self.gate = Gate(self._room, valve_of(scheduler), fail=self._abort)
        self._overfull = Overfull("submit", self.gate)

    def on_next(self, task: Task[Any]) -> None:
        """Hold *task* for the next batch."""
        self._held.append(task)
        self._overfull.look(self._room())
        if len(self._held) >= self._count:
            self._advance()
        elif self._timer is None and not self._due:
            self._timer = self._loop.call_later(self._span, self._ripe, context=self._home.copy())

    def on_completed(self) -> None:
        """Write what is held, then complete."""
        self._done = self._due = True
        self._advance()

    def on_error(self, error: Exception) -> None:
        """Write what is held, then pass *error* on."""
        self._error = error
        self.on_completed()

    def dispose(self) -> None:
        """Drop what is not written; a write under way is cancelled."""
        self._stopped = True
        self._held.clear()
        if self._timer is not None:
            self._timer.cancel()
        if self._write is not None:
            self._write.cancel()
        self.gate.dispose()

    def _abort(self, error: Exception) -> None:
        self.dispose()
        self._observer.on_error(error)

    def _room(self) -> int:
        return 4 * self._count - len(self._held) - self._writing

    def _ripe(self) -> None:
        self._timer = None
        self._due = True
        self._advance()

    def _advance(self) -> None:
        if self._write is not None or self._stopped:
            return
        if self._held and (self._due or len(self._held) >= self._count):
            batch, self._held = self._held[: self._count], self._held[self._count :]
            self._due = self._done or bool(self._held)
            self._writing = len(batch)
            self._batch = batch
            self._write = self._loop.create_task(
                self._board.submit(batch), context=self._home.copy()
            )
            self._write.add_done_callback(self._written, context=self._home.copy())
        elif self._done and not self._held:
            self.dispose()
            if self._error is None:
                self._observer.on_completed()
            else:
                self._observer.on_error(self._error)

    def _written(self, task: asyncio.Task[SubmitResult]) -> None:
        self._write = None
        self._writing = 0
        batch, self._batch = self._batch, []
        if self._stopped:
            if not task.cancelled():
                task.exception()
            return
        if task.cancelled():
            # By a stranger, say one that cancels all tasks of the loop. What was written all the
            # same is a duplicate now.
            self._held = batch + self._held
            self._due = True
            self._loop.call_later(0.1, self._advance, context=self._home.copy())
            return
        error = task.exception()
        if isinstance(error, Exception):
            self._abort(error)
            return
        self._observer.on_next(task.result())
        if not self._stopped:
            self.gate.opened()
            self._advance()
