"""``Pipeline``: stages in a row, each with its own queue and pace."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self

from reactivex import Observable
from reactivex.abc import DisposableBase

from rxdispatch.callables import check_function
from rxdispatch.claim import Outcome
from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import ConfigError
from rxdispatch.every import every
from rxdispatch.listeners import call_each
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.once import Once
from rxdispatch.pipelines.shared.output import MIN_QUEUE, Output
from rxdispatch.pipelines.shared.run import Run
from rxdispatch.pipelines.shared.stage_error import StageError, report
from rxdispatch.pipelines.stages.board_worker import board_worker
from rxdispatch.pipelines.stages.chain import chain, queue_sizes, stages_before_board
from rxdispatch.pipelines.stages.handoff import BoardHandoff, FindBoard, board_of
from rxdispatch.pipelines.stages.pipeline_checks import (
    Source,
    board_name_of,
    check_boards,
    check_source,
    with_names,
)
from rxdispatch.pipelines.stages.pipeline_input import PipelineInput
from rxdispatch.pipelines.stages.resubmits import ResubmitIngress, Resubmits, Rule
from rxdispatch.pipelines.stages.run_stage import interrupting, reporting
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.pipelines.stages.stats import PipelineStats, StageCounters, read_stages

__all__ = ["Pipeline"]


class Pipeline:
    """
    Stages in a row, each with a bounded queue and a pace of its own.

    Use it with ``async with``, once. Leaving the block waits for *source* to end, and then for
    every item in the pipeline. Leaving it by an exception, or by cancellation, cancels the items
    at work, drops the rest, and waits for coroutines to end.

    :attr:`results` and :attr:`failures` are hot: each item goes to the current subscribers, and is
    counted even if there are none. A subscriber that applies back-pressure, such as
    ``to_async_iterable``, slows down the pipeline and eventually :meth:`submit`. The block does not
    end until such a subscriber has read every result. Subscribe before you submit.

    A stage that has a board, and all stages after it, run in :meth:`worker`, in this or other
    processes. In :attr:`results`, an item then has the value with which it went onto that board. If
    the first stage has a board, :meth:`submit` returns once the item is on it.

    Args:
        *stages: Made by :func:`stage`; no two may be given the same name or the same board.
        ordered: Emit the results in the order of submission. An item that is done before its turn
            keeps its slot until then.
        source: Items for the pipeline, which consumes them from the start and closes when they
            end. An error of the source is raised when the block is left, after the items before it
            are done.
        boards: Returns the board of a given name, as ``hub.board`` does; for stages that name their
            board.
        resubmit: A plain function, called with the :class:`StageError` of each failure in this
            process. It returns the seconds after which the original item is submitted again, or
            None if the failure is final; ``failures`` emits only final ones. ``failure.round`` is
            how often the item was submitted. An item that is submitted again does not wait for a
            place, and the pipeline does not end before the item has left it.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> async def fetch(n: int) -> int:
        ...     await asyncio.sleep(0.001)
        ...     return n * n
        >>> async def main() -> list[str]:
        ...     found = []
        ...     async with Pipeline(stage(fetch, max_concurrent=8), stage(str), ordered=True) as p:
        ...         p.results.subscribe(found.append)
        ...         for n in range(4):
        ...             await p.submit(n)
        ...     return found
        >>> from rxdispatch.pipelines.stages.stage import stage
        >>> asyncio.run(main())
        ['0', '1', '4', '9']
    """

    def __init__(
        self,
        *stages: Stage,
        ordered: bool = False,
        source: Source | None = None,
        boards: FindBoard | None = None,
        resubmit: Rule | None = None,
    ) -> None:
        if not stages:
            raise ConfigError("a pipeline must have a stage")
        self._stages: dict[str, Stage] = {}
        for one in stages:
            if not isinstance(one, Stage):
                raise ConfigError("stages must be made by stage()", one)
        stages = with_names(stages)
        self._stages.update({one.name: one for one in stages})
        names = [board_name_of(one) for one in stages if one.board is not None]
        if len(set(names)) < len(names):
            raise ConfigError("each board must belong to one stage", names)
        if ordered.__class__ is not bool:
            raise ConfigError("ordered must be True or False", ordered)
        if ordered and names:
            raise ConfigError("ordered must be False if a stage has a board", ordered)
        if boards is not None:
            check_boards(boards)
        if source is not None:
            check_source(source)
        self._ordered = ordered
        self._source = source
        self._boards = boards
        # The stages that run here; the others run where their items are claimed.
        self._here = stages[: stages_before_board(stages)]
        self._next = stages[len(self._here)] if names else None
        self._handoff: BoardHandoff | None = None
        self._counters = [StageCounters(stage.name) for stage in self._here]
        self._queues = queue_sizes(self._here)
        self._ingress = ResubmitIngress(self._queues[0] if self._here else MIN_QUEUE)
        self._resubmits: Resubmits | None = None
        self._lost = reporting(self._on_failure)
        if resubmit is not None:
            check_function("resubmit", resubmit, "failure")
            if not self._here:
                raise ConfigError("resubmit must be None if the first stage has a board")
            told = interrupting(self._on_failure)
            self._resubmits = Resubmits(resubmit, self._ingress, told)
            self._lost = self._resubmits.lost
        self._results: Output[Any] = Output(MIN_QUEUE)
        self._emitted = 0
        self._run: Run[StageError] = Run("the pipeline", close=self._close, finish=self._finish)
        self._input = PipelineInput(self._run, self._ingress, self._resubmits)
        self._over = Once("stats")

    # ------------------------------------------------ description

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages, in order."""
        return tuple(self._stages.values())

    def stage(self, name: str) -> Stage:
        """
        Return the stage of that name.

        Raises:
            ConfigError: If there is none.
        """
        try:
            return self._stages[name]
        except KeyError:
            raise ConfigError(f"name must be one of {', '.join(self._stages)}", name) from None

    # ------------------------------------------------ stages with boards

    def worker(
        self,
        name: str,
        boards: FindBoard | None = None,
        *,
        lease: float | timedelta = 30.0,
        worker: str | None = None,
        until: Literal["never", "idle", "joined"] = "never",
    ) -> Observable[Outcome[Any, Any]]:
        """
        Run a stage that has a board, and the stages after it up to the next board.

        The stages run while you are subscribed. The pipeline need not be entered, and any number of
        processes may run the same stages. The stream emits an outcome for each item once it is
        settled: ``outcome.result`` is what the last of these stages returned, None for an item that
        was skipped. An item that fails becomes a dead letter of the board of *name*. The cause of
        ``outcome.error`` is then a :class:`StageError`, and ``board.redrive`` sends the item to
        that stage again.

        An item is settled after it is on the next board, under the same id. So if a process is
        killed, its items go through these stages again: their functions run at least once, and
        should be idempotent. If something must happen for each result, do it in the function of the
        last stage: an outcome may be lost with its process.

        Args:
            name: The name of the stage.
            boards: As for :class:`Pipeline`; by default, what the pipeline was given.
            lease: Seconds until another process may take over the items of a killed process.
            worker: A label for this worker.
            until: When to complete, as for ``board.claims``.

        Raises:
            ConfigError: If there is no such stage, it has no board, a board is only a name and
                *boards* is None, or an argument breaks its rule.
        """
        stages = self.stages
        place = stages.index(self.stage(name))
        if stages[place].board is None:
            raise ConfigError("name must be the name of a stage with a board", name)
        if boards is not None:
            check_boards(boards)
        find = self._boards if boards is None else boards
        end = place + 1 + stages_before_board(stages[place + 1 :])
        board = board_of(stages[place], find)
        following = None if end == len(stages) else (stages[end], board_of(stages[end], find))
        return board_worker(
            stages[place:end], board, following, lease=lease, worker=worker, until=until
        )

    # ------------------------------------------------ input

    async def submit(self, item: Any, id: str | None = None) -> str:  # noqa: A002
        """
        Put *item* into the first stage's queue, and wait while that is full.

        Args:
            item: The item for the first stage.
            id: The id of the item in failures, of 1 to 200 characters; a new UUID by default. On a
                board it is also the id of the item's task: the same item is stored once, and
                another item with this id fails with a ``TaskRejectedError``. Without a board,
                nothing checks whether the id was used before.

        Returns:
            The id. The item comes out as a result or as a failure, unless the pipeline is
            cancelled.

        Raises:
            TaskRejectedError: If the pipeline was not entered, is closed, or closes while this
                waits.
            ConfigError: If *id* breaks its rule.
        """
        return await self._input.submit(item, id)

    async def feed(self, source: Source) -> int:
        """
        Submit all items of *source*, at the pace of the first stage.

        A source that can wait is asked for no more than fits. A drain ends the feed early: items
        that it has taken from the source by then are submitted, the rest stays there.

        Args:
            source: An observable, an async iterable, or any iterable.

        Returns:
            How many items were submitted.

        Raises:
            TaskRejectedError: As :meth:`submit`.
            ConfigError: If *source* is none of these.
            Exception: The error of *source*; the items before it have been submitted.
        """
        return await self._input.feed(source)

    async def _submit_to_board(self, envelope: Envelope) -> None:
        assert self._handoff is not None
        refused = await self._handoff.add([envelope])
        self._input.submitted += 1
        if refused:
            self._on_failure(self._handoff.refusal(envelope))
        else:
            self._on_result(envelope)

    # ------------------------------------------------ output

    @property
    def results(self) -> Observable[Any]:
        """The results of the last stage in this process; completes when the pipeline has ended."""
        return self._results.stream

    @property
    def failures(self) -> Observable[StageError]:
        """
        The items that failed; completes when the pipeline has ended.

        Without a subscriber, each is logged as ``item_failed``. A subscriber that applies
        back-pressure holds up new items.
        """
        return self._run.failures.stream

    @property
    def stats(self) -> PipelineStats:
        """A snapshot of the pipeline's counters."""
        return read_stages(self._here, self._counters, self._input.submitted, self._emitted)

    def stats_every(self, period: float | timedelta) -> Observable[PipelineStats]:
        """
        Emit :attr:`stats` at once, every *period* seconds, and at the end; then complete.

        It costs nothing without a subscriber.

        Raises:
            ConfigError: If *period* is not a number of seconds above 0.
        """
        return every(period, lambda: self.stats, self._over.stream)

    def _on_result(self, envelope: Envelope) -> None:
        self._emitted += 1
        try:
            self._results.emit(envelope.value)
        finally:
            if self._resubmits is not None:
                self._resubmits.leave(envelope)

    def _on_failure(self, failure: StageError) -> None:
        report(self._run.failures, failure)

    # ------------------------------------------------ lifetime

    async def __aenter__(self) -> Self:
        handoff = None
        if self._next is not None:
            board = board_of(self._next, self._boards)
            handoff = BoardHandoff(self._next, board, self._lost, report_duplicates=True)
        self._run.enter()
        self._handoff = handoff
        if not self._here:
            self._input.handoff = self._submit_to_board
        loop = asyncio.get_running_loop()
        self._gate = self._results.gate(None)
        self._subscription: DisposableBase = self._chain(loop).subscribe(
            self._on_result,
            self._run.fail,
            self._run.finish,
            scheduler=LoopScheduler(loop, valve=self._gate),
        )
        self._feeding: asyncio.Task[None] | None = None
        if self._source is not None:
            self._feeding = loop.create_task(self._input.feed_all(self._source))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._run.leave(error, self._feeding)

    async def drain(self, timeout: float | timedelta | None = None) -> bool:
        """
        Accept no more items, and wait until every item in the pipeline has left it.

        May be called again. Cancelling it leaves the pipeline draining.

        Args:
            timeout: Seconds after which the remaining items are cancelled: ``results`` then ends
                with an ``ItemTimeoutError``. None waits as long as it takes.

        Returns:
            True if all items came out, False if the rest was cancelled, by this call or earlier.

        Raises:
            ConfigError: If *timeout* is not a number of seconds, or the pipeline was not entered.
            Exception: The error that ended the pipeline, unless that was a timeout or the exception
                that left the block.
        """
        return await self._run.drain(timeout)

    def _chain(self, loop: asyncio.AbstractEventLoop) -> Observable[Envelope]:
        for counters in self._counters:
            counters.begin(loop.time)
        stream = chain(
            self._ingress.pipe(self._run.failures.throttle),
            self._here,
            queues=self._queues,
            stage_counters=self._counters,
            wait_group=self._run.wait_group,
            lost=self._lost,
            ordered=self._ordered,
        )
        return stream if self._handoff is None else stream.pipe(self._handoff)

    def _close(self) -> None:
        self._input.close()

    def _finish(self, error: Exception | None) -> None:
        self._run.conclude()
        # An error of one subscriber must not keep the others from their end.
        call_each(
            (
                *((self._subscription.dispose,) if self._run.aborted else ()),
                *(() if self._resubmits is None else (self._resubmits.close,)),
                self._run.close,
                self._ingress.close,
                self._gate.dispose,
                lambda: self._results.end(error),
                self._run.failures.end,
                self._over.happen,
            )
        )
