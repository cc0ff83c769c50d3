"""``work``: the worker's stream of claims, handler and settlements."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import attrs
from reactivex import operators as rx

from rxdispatch import operators as ops
from rxdispatch.boards.base import Board
from rxdispatch.claim import Outcome, OutcomeStatus
from rxdispatch.cli.interrupts import Interrupts
from rxdispatch.errors import ConfigError, ItemTimeoutError
from rxdispatch.seconds import seconds
from rxdispatch.streams import run
from rxdispatch.task import Task

__all__ = ["OutcomeCounts", "Work", "work"]

PREFETCH: Final = 1024

_SETTLED: Final = ("done", "retry", "dead")


@attrs.frozen
class Work:
    """
    The settings of a worker.

    Args:
        handler: Called with each task.
        max_concurrent: How many tasks run at once.
        lease: Seconds that a claim lasts without renewal.
        max_tasks: How many tasks the worker settles before it ends; None for no limit.

    Raises:
        ConfigError: If an argument breaks its rule.
    """

    handler: Callable[[Task[Any]], Any]
    max_concurrent: int
    lease: float
    max_tasks: int | None

    def __attrs_post_init__(self) -> None:
        if self.max_concurrent < 1:
            raise ConfigError("max-concurrent must be >= 1", self.max_concurrent)
        if self.max_tasks is not None and self.max_tasks < 1:
            raise ConfigError("max-tasks must be >= 1", self.max_tasks)
        seconds("lease", self.lease, zero=False)


class OutcomeCounts:
    """
    The number of outcomes by status.

    Args:
        on_outcome: Called with each outcome.
    """

    def __init__(self, on_outcome: Callable[[Outcome[Any, Any]], None]) -> None:
        self._on_outcome = on_outcome
        self._counts: Counter[OutcomeStatus] = Counter()

    @property
    def total(self) -> int:
        """How many claims this worker has settled: done, to be retried, or dead."""
        return sum(self._counts[status] for status in _SETTLED)

    def count(self, outcome: Outcome[Any, Any]) -> None:
        """Count *outcome*, which is settled."""
        self._counts[outcome.status] += 1
        self._on_outcome(outcome)

    def __str__(self) -> str:
        counts = self._counts
        return (
            f"{counts['done']:,} done, {counts['retry']:,} retried, {counts['dead']:,} dead,"
            f" {counts['lost']:,} lost"
        )


async def work(
    board: Board[Any], job: Work, interrupts: Interrupts, settled: OutcomeCounts
) -> bool:
    """
    Run the handler for tasks of *board* until a signal, or until ``job.max_tasks`` are settled.

    Returns:
        False if a task did not end within the grace after a signal.
    """
    while interrupts.first is None:
        # Lost and released tasks do not count, so another round runs as many others.
        left = None if job.max_tasks is None else job.max_tasks - settled.total
        if left == 0:
            break
        claims = board.claims(
            prefetch=PREFETCH if left is None else min(PREFETCH, left), lease=job.lease
        )
        if left is not None:
            claims = claims.pipe(rx.take(left))
        try:
            await run(
                claims.pipe(
                    interrupts.switch.gate(),
                    ops.execute(job.handler, max_concurrent=job.max_concurrent),
                    ops.settle(board),
                    rx.do_action(settled.count),
                )
            )
        except ItemTimeoutError:
            # Only the switch ends this stream with this error.
            return False
    return True
