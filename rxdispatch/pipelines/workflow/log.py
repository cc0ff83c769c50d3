"""
``WorkflowLog``: the transitions of workflows, stored as tasks of a board without workers.

Invariant: transition *n* of workflow *id* is the task ``<id>/<n>`` of the journal. A submit adds
an id only once, in one atomic step, and nothing removes it before ``forget``. So however many
processes run a state, exactly one of them records its transition; the others get "duplicate" and
continue from the record. The log always wins.

What happens if a process is killed, or loses its lease:

- before it writes a record: the state runs again, and there is one record;
- after it has written a record: the next process reads the record and continues after it;
- while the reply is on its way: the same; a process that lives asks for the reply again;
- after the last record, before it settles the workflow's own task: the next process finds that the
  log has ended, and settles the task;
- while it is paused, and another process overtakes it: only the first record counts, whichever
  process writes it; the second is a duplicate. So two different next states are never recorded;
- while it forgets: the records that it holds are free again after ``FORGETTING`` seconds.

After ``forget`` a paused process may still write one record of the old workflow: do not reuse the
id of a forgotten workflow.

Records are read without a claim, so any number of readers can read at once. A reader reads from
record 1 to the first gap: a record is only ever added after the last one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeVar

import attrs

from rxdispatch.backoff import Backoff
from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim
from rxdispatch.errors import BoardFullError, StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.pipelines.workflow.history import Transition
from rxdispatch.pipelines.workflow.states import Step
from rxdispatch.task import Status, Task

__all__ = ["WorkflowLog", "patiently"]

T = TypeVar("T")

log = get_logger(__name__)

FORGETTING: Final = 5.0
"""Seconds for which the process that removes records holds them."""

PAGE: Final = 32
"""Records in one request."""

_AGAIN: Final = Backoff(first=0.02, maximum=1.0)
_PATIENCE: Final = Backoff(first=0.1, maximum=2.0)


class WorkflowLog:
    """
    The log of every workflow of one kind.

    Args:
        journal: A board for this log only; its payloads are plain values.
        limit: The most transitions of a workflow.
    """

    def __init__(self, journal: Board[Any], limit: int) -> None:
        self._journal = journal
        self._limit = limit

    async def add(self, workflow: str, number: int, step: Step) -> bool:
        """Record transition *number*, from 1; return False if it is recorded already."""
        payload = {**attrs.asdict(step.entry, recurse=False), "data": step.data}
        task = Task(payload, id=f"{workflow}/{number}", kind="workflow-transition")
        return bool((await self._journal.submit(task)).accepted)

    async def read(self, workflow: str) -> list[Step]:
        """Return all transitions so far."""
        steps: list[Step] = []
        while len(steps) < self._limit:
            numbers = range(len(steps) + 1, min(len(steps) + PAGE, self._limit) + 1)
            for payload in await self._journal.peek([f"{workflow}/{n}" for n in numbers]):
                if payload is None:
                    return steps
                steps.append(_step(payload))
        return steps

    async def forget(self, workflow: str) -> None:
        """Remove all records of a workflow."""
        claims = await self._claim(workflow)
        # The last first: if this is cut short, the remaining records are still a valid log.
        await self._journal.settle([claim.done() for claim in reversed(claims)])

    async def _claim(self, workflow: str) -> list[Claim[Any]]:
        """Claim all records, which other processes may be removing too."""
        ids = [f"{workflow}/{n}" for n in range(1, self._limit + 1)]
        turn = 0
        while True:
            claims = await self._journal.claim(len(ids), ids=ids, lease=FORGETTING)
            found = {claim.task.id: claim for claim in claims}
            try:
                missing = next((name for name in ids if name not in found), None)
                state = None if missing is None else await self._journal.get(missing)
            except BaseException:
                self._journal._intakes.give_back(claims)
                raise
            if state is None or state.status is Status.DONE:
                return [found[name] for name in ids if name in found]
            await self._release(claims)
            if state.status is Status.DEAD:
                # Processes were repeatedly killed while they removed it.
                await self._journal.redrive([state.id])
            turn += 1
            await asyncio.sleep(_AGAIN.delay(turn))

    async def _release(self, claims: list[Claim[Any]]) -> None:
        try:
            await self._journal.settle([claim.release() for claim in claims])
        except BaseException:
            self._journal._intakes.give_back(claims)
            raise


def _step(payload: dict[str, Any]) -> Step:
    facts = dict(payload)
    data = facts.pop("data")
    return Step(Transition(**facts), data)


async def patiently(claim: Claim[Any], work: Callable[[], Awaitable[T]]) -> T:
    """Wait until *claim* is known to be held, and await *work*; repeat until the board answers."""
    turn = 0
    while True:
        # After its lease a claim is in doubt: either a renewal confirms it, or it is lost and this
        # call is cancelled. To fail here would end a workflow only because the loop was blocked.
        while claim.lost:
            turn += 1
            await asyncio.sleep(_PATIENCE.delay(turn))
        try:
            return await work()
        except (StoreUnavailableError, BoardFullError) as error:
            log.warning("workflow_waits", workflow=claim.task.id, error=str(error))
            turn += 1
            await asyncio.sleep(_PATIENCE.delay(turn))
