"""
The ``settle`` operator: write outcomes to their board, in batches.

Whether a failed task is retried or dead is decided in ``rxdispatch/retry_or_dead.py``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import Observable, abc

from rxdispatch.checks import integer
from rxdispatch.claim import Outcome, Settlement
from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.operators._subscription import Subscription, operator_of
from rxdispatch.operators.tasks._check_outcome import check_outcome
from rxdispatch.operators.tasks._outage import Outage
from rxdispatch.protocols import BoardLike
from rxdispatch.seconds import seconds

__all__ = ["settle"]

log = get_logger(__name__)

P = TypeVar("P")
R = TypeVar("R")

Result = Outcome[Any, Any]

CANCELLED = 0.1
"""Seconds until a write that other code cancelled is repeated."""


def settle(
    board: BoardLike, *, count: int = 256, timespan: float | timedelta = 0.002
) -> Callable[[Observable[Outcome[P, R]]], Observable[Outcome[P, R]]]:
    """
    Write outcomes to *board* and pass each on once it is written.

    ::

        --o1-o2---------o3--|
        [   settle(board)   ]
        --------o1-o2------o3|

    A batch is written when *count* outcomes have come, or at once when every claim of the stream
    has its outcome here, since then no more can come. It is also written when its first outcome
    has waited *timespan*, unless another write is under way: under load, a batch grows while the
    previous one is written. An outcome whose claim was lost, or whose token was refused, is
    passed on with status ``lost``.

    Args:
        board: Where the claims came from.
        count: The most outcomes in a batch, at least 1.
        timespan: Seconds an outcome waits for others, more than 0.

    Raises:
        ConfigError: If an argument breaks its rule. An item that is not an outcome of a claim of
            *board* ends the stream with one, such as the ``None`` of a function that forgot to
            return, or a claim that did not pass ``execute``.

    While the server is unreachable, the operator waits, and then continues. The valve closes when
    4 times *count* outcomes are held or being written. Completion and errors follow the last
    write. Disposal writes the held outcomes in the background.
    """
    integer("count", count)
    span = seconds("timespan", timespan, zero=False)

    operator: Callable[[Observable[Result]], Observable[Result]] = operator_of(
        lambda observer, scheduler: _Settler(board, count, span, observer, scheduler)
    )
    return operator


class _Settler(Subscription[Result, Result]):
    """One subscription of ``settle``."""

    def __init__(
        self,
        board: BoardLike,
        count: int,
        timespan: float,
        observer: abc.ObserverBase[Result],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__("settle", 4 * count, observer, scheduler)
        self._board = board
        self._count = count
        self._span = timespan
        self._batch: list[Result] = []
        self._writing = 0
        self._writes: dict[asyncio.Task[None], list[Result]] = {}
        self._again: list[Result] = []  # to be written again
        # What ends the stream once all is written.
        self._last: Callable[[], None] | None = None
        self._due = False
        self._outage = Outage(
            lambda error: log.warning("settle_waits", board=board.name, error=error),
            lambda: log.info("settle_goes_on", board=board.name),
        )

    def on_next(self, outcome: Result) -> None:
        """Add *outcome* to the batch; write it if there is nothing to wait for."""
        if (
            outcome.__class__ is not Outcome
            or outcome.status != "done"
            or outcome.claim._origin.board is not self._board
        ):
            try:
                check_outcome(outcome, self._board.name)
            except ConfigError as error:
                # Without its frames, which would keep the claim alive as long as the error.
                self.fail(error.with_traceback(None))
                return
        batch = self._batch
        batch.append(outcome)
        size = len(batch)
        outstanding = outcome.claim._outstanding
        if size >= self._count or (
            outstanding is not None and size + self._writing >= outstanding()
        ):
            self._flush()
        elif size == 1:
            if not self.upstream.demand_checked and self.room() < 0:
                self.upstream.check_demand()
            self.timer = self.loop.call_later(self._span, self._ripe, context=self.home.copy())

    def on_error(self, error: Exception) -> None:
        """Write the held outcomes, then pass *error* on."""
        self._finish(lambda: self.fail(error))

    def on_completed(self) -> None:
        """Write the held outcomes, then complete."""
        self._finish(self.complete)

    def clear(self) -> None:
        """Write the held outcomes in the background."""
        self._post(self._again + self._take())

    def _post(self, batch: list[Result]) -> None:
        self._board._intakes.post([s for outcome in batch if (s := outcome.settlement())])

    def room(self) -> int:
        """How many more outcomes may be held; those being written count."""
        return 4 * self._count - len(self._batch) - len(self._again) - self._writing

    def _take(self) -> list[Result]:
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        self._due = False
        batch, self._batch = self._batch, []
        return batch

    def _ripe(self) -> None:
        self.timer = None
        if self._writing:
            self._due = True
        else:
            self._flush()

    def _flush(self) -> None:
        batch = self._take()
        if batch:
            self._start(batch)

    def _start(self, batch: list[Result]) -> None:
        self._writing += len(batch)
        task = self.loop.create_task(self._write(batch), context=self.home.copy())
        self._writes[task] = batch
        task.add_done_callback(self._written, context=self.home.copy())

    def _finish(self, end: Callable[[], None]) -> None:
        self._last = end
        self._flush()
        self._ended()

    async def _write(self, batch: list[Result]) -> None:
        await self._settle(batch)
        self._writing -= len(batch)
        me: Any = asyncio.current_task()
        self._writes[me] = []
        if self._due and not self.closed:
            self._flush()
        on_next = self.observer.on_next
        for outcome in batch:
            if self.closed:
                return
            on_next(outcome)
        if not self.closed:
            self.gate.opened()

    async def _settle(self, batch: list[Result]) -> None:
        pairs = [(o, s) for o in batch if (s := o.settlement()) is not None]
        if not pairs:
            return
        settlements: list[Settlement] = [settlement for _, settlement in pairs]
        # The same settlements again: if they were executed, the answer is the same.
        held = await self._outage.until_answered(lambda: self._board.settle(settlements), 0.05, 0.3)
        for (outcome, _), holds in zip(pairs, held, strict=True):
            if not holds:
                outcome.status = "lost"

    def _written(self, task: asyncio.Task[None]) -> None:
        batch = self._writes.pop(task)
        self._writing -= len(batch)
        if task.cancelled():
            # By other code, for example code that cancels all tasks of the loop. The batch may
            # have been written; the board then gives the same answer.
            if self.closed:
                self._post(batch)
            elif batch:
                self._again += batch
                self.loop.call_later(CANCELLED, self._repeat, context=self.home.copy())
            else:
                self._ended()  # the batch was emitted before the task noticed
            return
        error = task.exception()
        if error is None:
            self._ended()
        elif self.closed:
            log.error("settle_failed", board=self._board.name, failure=error)
        elif isinstance(error, Exception):
            self.fail(error)

    def _repeat(self) -> None:
        batch, self._again = self._again, []
        if batch and not self.closed:
            self._start(batch)

    def _ended(self) -> None:
        if self._last is not None and not self._writes and not self._again:
            last, self._last = self._last, None
            last()
