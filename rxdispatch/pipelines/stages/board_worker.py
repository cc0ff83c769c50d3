"""``board_worker``: claims items from a board, and runs the stages up to the next board."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable

from rxdispatch.boards.base import Board
from rxdispatch.claim import Outcome
from rxdispatch.operators import execute, settle
from rxdispatch.operators.tasks._current_claim import current_claim
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.stage_error import StageError
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.pipelines.stages.chain import chain, queue_sizes
from rxdispatch.pipelines.stages.handoff import BoardHandoff
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.pipelines.stages.stats import StageCounters
from rxdispatch.streams import Ingress
from rxdispatch.task import Task

__all__ = ["board_worker"]

Next = tuple[Stage, Board[Any]]


def board_worker(
    stages: Sequence[Stage],
    board: Board[Any],
    following: Next | None,
    *,
    lease: float | timedelta,
    worker: str | None,
    until: Literal["never", "idle", "joined"],
) -> Observable[Outcome[Any, Any]]:
    """
    Return the stream that claims items from *board* and runs *stages* on them while subscribed.

    A claim is settled only after its item has gone through all stages and is on the board of the
    *following* stage, if there is one. So a process that is killed leaves each of its items on at
    least one board. It leaves an item on both if it is killed before it settles; the worker that
    claims the item again then gets "duplicate" from the second board.

    Args:
        stages: The stages; *board* is the queue of the first.
        board: The board.
        following: The stage after them, and its board.
        lease: As for ``board.claims``, like the next two.
        worker: The label of the worker.
        until: When to complete.
    """
    # The board is the queue: an item that is claimed too early is kept from other workers.
    queues = queue_sizes(stages)
    queues[0] = stages[0].queue_size or stages[0].burst
    most = sum(queues) + sum(stage.burst for stage in stages)
    claims = board.claims(prefetch=most, lease=lease, worker=worker, until=until)

    def subscribe(
        observer: abc.ObserverBase[Outcome[Any, Any]], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        handler = _ClaimHandler(stages, queues, following)
        inside = handler.stream.subscribe(handler.on_done, observer.on_error)
        outcomes = claims.pipe(
            execute(handler.handle, max_concurrent=most), settle(board)
        ).subscribe(observer, scheduler=scheduler)
        # Work ends before the claims go back: the next worker never overlaps with this one.
        return CompositeDisposable(inside, outcomes)

    return Observable(subscribe)


class _ClaimHandler:
    """One subscription: handles each claim by sending its item through the stages."""

    def __init__(
        self, stages: Sequence[Stage], queues: Sequence[int], following: Next | None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._ingress: Ingress[Envelope] = Ingress(queues[0])
        # By token: a task is here twice if its claim was lost, and this worker claimed it again.
        self._held: dict[int, tuple[asyncio.Future[Any], Mapping[str, str]]] = {}
        stage_counters = [StageCounters(stage.name) for stage in stages]
        for counters in stage_counters:
            counters.begin(self._loop.time)
        #: The items that have gone through all stages.
        self.stream = chain(
            self._ingress,
            stages,
            queues=queues,
            stage_counters=stage_counters,
            wait_group=WaitGroup(),
            lost=self._lost,
        )
        if following is not None:
            self.stream = self.stream.pipe(BoardHandoff(*following, self._lost, self._headers))

    async def handle(self, task: Task[Any]) -> Any:
        """Send the item of a claim through the stages, and return the result of the last."""
        token = current_claim().token
        through: asyncio.Future[Any] = self._loop.create_future()
        self._held[token] = through, task.headers
        try:
            await self._ingress.put(Envelope(task.id, task.payload, token=token))
            return await through
        finally:
            del self._held[token]

    def on_done(self, envelope: Envelope) -> None:
        """Pass the result of an item to the handler of its claim."""
        held = self._held.get(envelope.token)
        # If the claim was lost, it is not held any more, or its future is done already.
        if held is not None and not held[0].done():
            held[0].set_result(envelope.value)

    def _lost(self, envelope: Envelope, failure: StageError | None) -> None:
        held = self._held.get(envelope.token)
        if held is None or held[0].done():
            return
        if failure is None:
            held[0].set_result(None)
        elif isinstance(failure.__cause__, KeyboardInterrupt):
            # The interrupt is meant for the process. The lease lapses, which counts as a crash.
            held[0].set_exception(failure.__cause__)
        else:
            held[0].set_exception(failure)

    def _headers(self, envelope: Envelope) -> Mapping[str, str] | None:
        held = self._held.get(envelope.token)
        return None if held is None else held[1]
