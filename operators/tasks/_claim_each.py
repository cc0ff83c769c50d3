"""The ``claim_each`` operator: claims the tasks that pass by, unless another worker wins them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from reactivex import Observable, abc

from rxdispatch.claim import Claim
from rxdispatch.errors import ConfigError
from rxdispatch.log import get_logger
from rxdispatch.operators._subscription import Subscription, operator_of
from rxdispatch.operators.tasks._claim_buffer import ClaimBuffer
from rxdispatch.operators.tasks._outage import Outage
from rxdispatch.protocols import BoardLike
from rxdispatch.seconds import seconds
from rxdispatch.task import Task

__all__ = ["claim_each"]

log = get_logger(__name__)

BATCH = 1000

CANCELLED = 0.1
"""Seconds until the next claim after other code has cancelled a claim."""


def claim_each(
    board: BoardLike, *, lease: float | timedelta = 30.0, worker: str | None = None
) -> Callable[[Observable[Task[Any] | str]], Observable[Claim[Any]]]:
    """
    For each task (or id) that passes by, emit a claim only if this worker wins its mark.

    ::

        --a--b--c--d------|
        [ claim_each(bd)  ]
        ----A-----C-------|      (another worker won b and d)

    Several workers may see the same tasks, for example by a broadcast; each task runs once. The
    tasks must have been submitted to *board*. Tasks that arrive in one turn of the loop, or while
    a claim is under way, are claimed together.

    Args:
        board: Where the marks are.
        lease: Seconds a claim lasts without renewal; renewed at a third of it until settled.
        worker: A label for this worker.

    Raises:
        ConfigError: If *lease* is not a positive number of seconds.

    The stream completes when the source has completed and every item is decided. Errors of the
    source pass through at once; disposal gives back claims that were not emitted. The valve
    closes when 1,000 items wait.
    """
    span = seconds("lease", lease, zero=False)

    return operator_of(
        lambda observer, scheduler: _Chooser(board, span, worker, observer, scheduler)
    )


class _Chooser(Subscription[Task[Any] | str, Claim[Any]]):
    """One subscription of ``claim_each``."""

    def __init__(
        self,
        board: BoardLike,
        lease: float,
        worker: str | None,
        observer: abc.ObserverBase[Claim[Any]],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__("claim_each", BATCH, observer, scheduler, on_room=self._on_room)
        self._buffer = ClaimBuffer(
            board,
            lease,
            observer,
            self.below,
            on_left=self._advance,
            on_stop=self.complete,
            on_error=self.fail,
        )
        self._board = board
        self._inbox = board._intakes.inbox(None, worker, lease)
        # Only to hear of claims that are cancelled: this operator waits for nothing.
        self._listening = self._inbox.listen(self)
        self._ids: dict[str, None] = {}
        self._asked: list[str] = []  # being claimed
        self._claiming: asyncio.Task[None] | None = None
        self._done = False
        self._outage = Outage(
            lambda error: log.warning("claims_waiting", board=board.name, error=error),
            lambda: log.info("claims_going_on", board=board.name),
        )

    def on_next(self, item: Task[Any] | str) -> None:
        """Claim the task of that id as soon as possible."""
        task_id = item.id if isinstance(item, Task) else item
        if not isinstance(task_id, str):
            self.fail(ConfigError("claim_each must be given Tasks or ids", item))
            return
        self._ids[task_id] = None
        if not self.upstream.demand_checked and self.room() < 0:
            self.upstream.check_demand()
        self._advance()

    def on_completed(self) -> None:
        """Complete once every item is decided."""
        self._done = True
        self._advance()

    def clear(self) -> None:
        """Give back claims that were not emitted, and claims that the call under way brings."""
        self._listening.dispose()
        self._buffer.close()
        self._ids.clear()
        if self._claiming is not None:
            self._claiming.cancel()

    def woken(self) -> None:
        """Do nothing: it claims what its source names."""

    def due(self, seconds: float) -> None:
        """Do nothing: it claims what its source names."""

    def delivered(self, claims: list[Claim[Any]], age: float) -> None:  # noqa: ARG002
        """Give back what was handed over by mistake."""
        self._board._intakes.give_back(claims)

    def cancelled(self, tokens: Sequence[int]) -> None:
        """Stop the handlers of claims that were cancelled."""
        self._buffer.cancelled(tokens, self._inbox)

    def room(self) -> int:
        """How many more items may wait for their marks or for room below."""
        return BATCH - len(self._ids) - len(self._asked) - len(self._buffer.waiting)

    def _on_room(self) -> None:
        self._buffer.pump()
        self._advance()

    def _advance(self) -> None:
        buffer = self._buffer
        if self._claiming is not None or self.closed:
            return
        if self._ids:
            self._claiming = self.loop.create_task(self._claim(), context=self.home.copy())
            self._claiming.add_done_callback(self._claimed, context=self.home.copy())
        elif self._done and not buffer.waiting:
            self.complete()

    async def _claim(self) -> None:
        ids = self._asked = list(self._ids)[:BATCH]
        for task_id in ids:
            del self._ids[task_id]
        inbox = self._inbox
        batch = await self._outage.until_answered(
            lambda: inbox.claim(len(ids), park=0, ids=ids), 0.1, 0.5
        )
        self._asked = []
        self._buffer.add(batch.claims)

    def _claimed(self, task: asyncio.Task[None]) -> None:
        self._claiming = None
        asked, self._asked = self._asked, []
        if task.cancelled():
            if not self.closed:
                # By other code, for example code that cancels all tasks of the loop.
                self._ids = dict.fromkeys([*asked, *self._ids])
                self.loop.call_later(CANCELLED, self._go_on, context=self.home.copy())
            return
        error = task.exception()
        if isinstance(error, Exception):
            self.fail(error)
        else:
            self._go_on()

    def _go_on(self) -> None:
        try:
            self.gate.opened()
        finally:
            # Also when the source raises while it emits.
            self._advance()
