"""The ``submit`` operator: puts tasks on a board, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from reactivex import Observable, abc

from rxdispatch.checks import integer
from rxdispatch.operators._subscription import Subscription, operator_of
from rxdispatch.protocols import BoardLike
from rxdispatch.results import SubmitResult
from rxdispatch.seconds import seconds
from rxdispatch.task import Task

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
        count: The most tasks in a batch, at least 1.
        timespan: Seconds a task waits for others, more than 0.

    Raises:
        ConfigError: If an argument breaks its rule.

    Batches are written one after the other, so that tasks keep their order. The valve closes when
    4 times *count* tasks are held or being written. A task that cannot be stored, a full board or
    a server that does not answer ends the stream with that error. Disposal drops the tasks that
    are not written. Completion writes the held tasks first.
    """
    integer("count", count)
    span = seconds("timespan", timespan, zero=False)

    return operator_of(
        lambda observer, scheduler: _Submitter(board, count, span, observer, scheduler)
    )


class _Submitter(Subscription[Task[Any], SubmitResult]):
    """One subscription of ``submit``."""

    def __init__(
        self,
        board: BoardLike,
        count: int,
        timespan: float,
        observer: abc.ObserverBase[SubmitResult],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__("submit", 4 * count, observer, scheduler)
        self._board = board
        self._count = count
        self._span = timespan
        self._held: list[Task[Any]] = []
        self._batch: list[Task[Any]] = []  # being written
        self._writing = 0
        self._write: asyncio.Task[SubmitResult] | None = None
        self._due = False
        self._done = False
        self._error: Exception | None = None

    def on_next(self, task: Task[Any]) -> None:
        """Hold *task* for the next batch."""
        self._held.append(task)
        if not self.upstream.demand_checked and self.room() < 0:
            self.upstream.check_demand()
        if len(self._held) >= self._count:
            self._advance()
        elif self.timer is None and not self._due:
            self.timer = self.loop.call_later(self._span, self._ripe, context=self.home.copy())

    def on_completed(self) -> None:
        """Write the held tasks, then complete."""
        self._done = self._due = True
        self._advance()

    def on_error(self, error: Exception) -> None:
        """Write the held tasks, then pass *error* on."""
        self._error = error
        self.on_completed()

    def clear(self) -> None:
        """Drop the held tasks and cancel the write under way."""
        self._held.clear()
        if self._write is not None:
            self._write.cancel()

    def room(self) -> int:
        """How many more tasks may be held; those being written count."""
        return 4 * self._count - len(self._held) - self._writing

    def _ripe(self) -> None:
        self.timer = None
        self._due = True
        self._advance()

    def _advance(self) -> None:
        if self._write is not None or self.closed:
            return
        if self._held and (self._due or len(self._held) >= self._count):
            batch, self._held = self._held[: self._count], self._held[self._count :]
            self._due = self._done or bool(self._held)
            self._writing = len(batch)
            self._batch = batch
            self._write = self.loop.create_task(self._board.submit(batch), context=self.home.copy())
            self._write.add_done_callback(self._written, context=self.home.copy())
        elif self._done and not self._held:
            if self._error is None:
                self.complete()
            else:
                self.fail(self._error)

    def _written(self, task: asyncio.Task[SubmitResult]) -> None:
        self._write = None
        self._writing = 0
        batch, self._batch = self._batch, []
        if self.closed:
            if not task.cancelled():
                task.exception()
            return
        if task.cancelled():
            # By other code, for example code that cancels all tasks of the loop. Tasks that were
            # written nevertheless are duplicates now.
            self._held = batch + self._held
            self._due = True
            self.loop.call_later(0.1, self._advance, context=self.home.copy())
            return
        error = task.exception()
        if isinstance(error, Exception):
            self.fail(error)
            return
        try:
            self.observer.on_next(task.result())
        finally:
            # Also when the subscriber raises: the tasks behind these are still due.
            self._go_on()

    def _go_on(self) -> None:
        if not self.closed:
            try:
                self.gate.opened()
            finally:
                self._advance()
