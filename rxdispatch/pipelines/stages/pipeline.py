"""``Pipeline``: stages in a row, each with its own queue and its own workers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from datetime import timedelta
from types import TracebackType
from typing import Any, Literal, Self

from reactivex import Observable
from reactivex import operators as rx
from reactivex.abc import DisposableBase
from uuid_utils import uuid7

from rxdispatch.callables import check_function
from rxdispatch.checks import key_name
from rxdispatch.claim import Outcome
from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import ConfigError, ItemTimeoutError, TaskRejectedError
from rxdispatch.listeners import call_each
from rxdispatch.log import get_logger
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.once import Once
from rxdispatch.pipelines.shared.output import Output
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.pipelines.stages.board_worker import board_worker
from rxdispatch.pipelines.stages.chain import LEAST, chain, until_board, waiting
from rxdispatch.pipelines.stages.handoff import BoardHandoff, Boards, board_of
from rxdispatch.pipelines.stages.pipeline_checks import (
    Source,
    board_name_of,
    checked_hub,
    checked_source,
)
from rxdispatch.pipelines.stages.resubmits import ResubmitIngress, Resubmits, Rule
from rxdispatch.pipelines.stages.run_stage import interrupting
from rxdispatch.pipelines.stages.stage import Stage, StageError
from rxdispatch.pipelines.stages.stage_names import with_names
from rxdispatch.pipelines.stages.stats import PipelineStats, StageCounters
from rxdispatch.pipelines.stages.stats_stream import every, read_stages
from rxdispatch.seconds import seconds
from rxdispatch.streams import from_async_iterable, to_async_iterable

__all__ = ["Pipeline"]

log = get_logger(__name__)


class Pipeline:
    """
    Stages in a row; each has a bounded queue of its own, and works on it at its own pace.

    It works from when it is entered with ``async with``. Leaving the block waits for *source* to
    end, and then for every item that was taken in; leaving it by an exception, or by
    cancellation, cancels what is at work, drops the rest, and waits for coroutines to end. It can
    be entered once.

    :attr:`results` and :attr:`failures` are hot: each item goes to those who are subscribed at the
    moment, and to nobody if there are none; it is counted all the same. A subscriber that can
    make its source wait, such as ``to_async_iterable``, holds up the pipeline, and in the end
    :meth:`submit`, while so many results wait for it; the block cannot be left before it has
    read them. Subscribe before you submit.

    A stage that has a board, and all after it, do not run here but in :meth:`worker`, here or in
    other processes. The result of an item is then what it was when it was put on that board. If
    that is the first stage, :meth:`submit` returns once the item is there.

    Args:
        *stages: Made by :func:`stage`; no two that were given the same name, or the same board.
        ordered: Give the results in the order of submission. An item that is done before its
            turn then keeps its slot.
        source: Fed from the start, and the end of it closes the pipeline. An error of it is
            raised when the block is left, after what came before it is done.
        hub: Where the boards are that stages give by name.
        stats_every: Seconds from one snapshot of :attr:`stats` to the next.
        resubmit: Asked of each failure of a stage here: a plain function of the
            :class:`StageError` that returns the seconds after which its item is submitted again
            as it first was, or None if it has failed for good; only then ``failures`` hear of it.
            ``failure.round`` says how often it was submitted. Such an item does not wait for a
            place, and the pipeline does not end before it has come out.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> async def fetch(n: int) -> int:
        ...     await asyncio.sleep(0.001)
        ...     return n * n
        >>> async def main() -> list[str]:
        ...     found = []
        ...     async with Pipeline(stage(fetch, concurrency=8), stage(str), ordered=True) as p:
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
        hub: Boards | None = None,
        stats_every: float | timedelta = 1.0,
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
        boards = [board_name_of(one) for one in stages if one.board is not None]
        if len(set(boards)) < len(boards):
            raise ConfigError("each board must be of one stage", boards)
        if ordered.__class__ is not bool:
            raise ConfigError("ordered must be True or False", ordered)
        if ordered and boards:
            raise ConfigError("ordered must be False where a stage has a board", ordered)
        if hub is not None:
            checked_hub(hub)
        if source is not None:
            checked_source(source)
        self._ordered = ordered
        self._source = source
        self._period = seconds("stats_every", stats_every, zero=False)
        self._hub = hub
        # What runs here; the rest runs where it is claimed.
        self._here = stages[: until_board(stages)]
        self._next = stages[len(self._here)] if boards else None
        self._handoff: BoardHandoff | None = None
        self._stage_counters = [StageCounters(stage.name) for stage in self._here]
        self._queues = waiting(self._here)
        self._ingress = ResubmitIngress(self._queues[0] if self._here else LEAST)
        self._resubmits: Resubmits | None = None
        if resubmit is not None:
            check_function("resubmit", resubmit, "failure")
            if not self._here:
                raise ConfigError("resubmit must be None where the first stage has a board")
            told = interrupting(self._on_failure)
            self._resubmits = Resubmits(resubmit, self._ingress, told)
        self._results: Output[Any] = Output(LEAST)
        self._failures: Output[StageError] = Output(LEAST)
        self._wait_group = WaitGroup()
        self._submitted = self._emitted = self._feeding = 0
        self._entered = self._closing = self._aborted = False
        self._failure: Exception | None = None
        self._stop = Once("intake")  # no more is taken in
        self._over = Once("stats")  # all has ended

    # ------------------------------------------------ what it is

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

    # ------------------------------------------------ where else it runs

    def worker(
        self,
        name: str,
        hub: Boards | None = None,
        *,
        lease: float = 30.0,
        worker: str | None = None,
        until: Literal["never", "idle", "joined"] = "never",
    ) -> Observable[Outcome[Any, Any]]:
        """
        Run a stage that has a board, and those after it up to the next board, while subscribed.

        The pipeline need not be entered, and any number of processes may do this. What comes out
        is an outcome for each item, once it is settled: ``outcome.result`` is what the last of
        these stages returned, None for one that was skipped. An item that fails is dead on the
        board of *name*, the cause of ``outcome.error`` is a :class:`StageError`, and
        ``board.redrive`` sends it to that stage again.

        An item is settled after it is on the next board, under the same id. So one whose process
        is killed goes through these stages again: at least once, and its functions should be
        such that doing them twice does no harm. What has to be done with each result is done in
        the last stage: an outcome may get lost with its process.

        Args:
            name: The stage.
            hub: Where the boards are that stages give by name; that of the pipeline if None.
            lease: Seconds until a killed process is replaced.
            worker: A label for this worker.
            until: When to complete, as for ``board.claims``.

        Raises:
            ConfigError: If there is no such stage, it has no board, a board is but a name and
                there is no hub, or an argument breaks its rule.
        """
        stages = self.stages
        place = stages.index(self.stage(name))
        if stages[place].board is None:
            raise ConfigError("name must be of a stage that has a board", name)
        if hub is not None:
            checked_hub(hub)
        hub = self._hub if hub is None else hub
        end = place + 1 + until_board(stages[place + 1 :])
        board = board_of(stages[place], hub)
        following = None if end == len(stages) else (stages[end], board_of(stages[end], hub))
        return board_worker(
            stages[place:end], board, following, lease=lease, worker=worker, until=until
        )

    # ------------------------------------------------ what goes in

    async def submit(self, item: Any, id: str | None = None) -> str:  # noqa: A002
        """
        Put *item* into the first stage's queue, and wait while that is full.

        Args:
            item: What the first stage gets.
            id: What failures call it, of 1 to 200 characters; a new uuid by default. Where a
                stage has a board, it is the id of the item's task there: the same item again is
                there once, and another one of its id fails with a ``TaskRejectedError``.
                Otherwise nobody looks whether it has been used before.

        Returns:
            The id. From then on the item comes out as a result or as a failure, unless the
            pipeline is cancelled.

        Raises:
            TaskRejectedError: If the pipeline has not been entered, or takes no more, also while
                this waits.
            ConfigError: If *id* breaks its rule.
        """
        called = str(uuid7()) if id is None else key_name("id", id)
        if self._closing or not self._entered:
            raise self._refusal()
        await self._put(Envelope(called, item))
        return called

    async def feed(self, source: Source) -> int:
        """
        Submit all that *source* has, at the pace of the first stage.

        A source that can wait is asked for no more than fits. A drain ends this early: what was
        taken from the source by then is submitted, the rest stays there.

        Args:
            source: An observable, an async iterable, or any iterable.

        Returns:
            How many items were submitted.

        Raises:
            TaskRejectedError: As :meth:`submit`.
            ConfigError: If *source* is none of these.
            Exception: The error of *source*; what came before it has been submitted.
        """
        checked_source(source)
        if self._closing or not self._entered:
            raise self._refusal()
        fed = 0
        self._feeding += 1
        try:
            if isinstance(source, (Observable, AsyncIterable)):
                stream = source if isinstance(source, Observable) else from_async_iterable(source)
                until = stream.pipe(rx.take_until(self._stop.stream))
                async with to_async_iterable(until, size=LEAST) as items:
                    async for item in items:
                        await self._put(Envelope(str(uuid7()), item))
                        fed += 1
            else:
                for item in source:
                    await self._put(Envelope(str(uuid7()), item))
                    fed += 1
                    if self._closing:
                        break
        finally:
            self._feeding -= 1
            if self._closing and not self._feeding:
                self._ingress.close()
        return fed

    async def _put(self, envelope: Envelope) -> None:
        if not self._here:
            # What is submitted is then safe at once.
            assert self._handoff is not None
            refused = await self._handoff.add([envelope])
            self._submitted += 1
            if refused:
                self._on_failure(self._handoff.refusal(envelope))
            else:
                self._on_result(envelope)
            return
        resubmits = self._resubmits
        if resubmits is not None:
            resubmits.enter(envelope)
        try:
            await self._ingress.put(envelope)
        except BaseException as error:
            if resubmits is not None:
                resubmits.leave(envelope)
            if isinstance(error, TaskRejectedError):
                raise self._refusal() from None
            raise
        self._submitted += 1

    def _refusal(self) -> TaskRejectedError:
        return TaskRejectedError(
            "the pipeline is closed" if self._entered else "the pipeline must be entered first"
        )

    # ------------------------------------------------ what comes out

    @property
    def results(self) -> Observable[Any]:
        """What the last stage here returned, as it comes; completes when the pipeline has ended."""
        return self._results.stream

    @property
    def failures(self) -> Observable[StageError]:
        """
        The items that failed; completes when the pipeline has ended.

        While nobody is subscribed they are logged, as ``item_failed``. A subscriber that can make
        its source wait holds up the intake.
        """
        return self._failures.stream

    @property
    def stats(self) -> Observable[PipelineStats]:
        """
        Snapshots: at once, every ``stats_every`` seconds, and at the end, then it completes.

        Nothing is done for it while nobody is subscribed.
        """
        return every(self._period, self._over.stream, self.read)

    def read(self) -> PipelineStats:
        """Return a snapshot of now."""
        return read_stages(self._here, self._stage_counters, self._submitted, self._emitted)

    def _on_result(self, envelope: Envelope) -> None:
        self._emitted += 1
        try:
            self._results.emit(envelope.value)
        finally:
            if self._resubmits is not None:
                self._resubmits.leave(envelope)

    def _on_lost(self, _: Envelope, failure: StageError) -> None:
        self._on_failure(failure)

    def _on_failure(self, failure: StageError) -> None:
        if self._failures.open:
            self._failures.emit(failure)
            return
        cause = failure.__cause__
        log.warning(
            "item_failed",
            stage=failure.stage,
            item=failure.task_id,
            failure=cause,
        )

    # ------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ConfigError("a pipeline must be entered once; make another one")
        if self._next is not None:
            board = board_of(self._next, self._hub)
            lost = self._on_lost if self._resubmits is None else self._resubmits.gone
            self._handoff = BoardHandoff(self._next, board, lost, report_duplicates=True)
        self._entered = True
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = loop.create_future()
        self._gate = self._results.gate(None)
        self._subscription: DisposableBase = self._chain(loop).subscribe(
            self._on_result,
            self._fail,
            self._finish,
            scheduler=LoopScheduler(loop, valve=self._gate),
        )
        self._sourcing: asyncio.Task[None] | None = None
        if self._source is not None:
            self._sourcing = loop.create_task(self._feed_all(self._source))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                if self._sourcing is not None:
                    await asyncio.wait({self._sourcing})
                await self.drain()
        except BaseException as worse:
            error = worse
            raise
        finally:
            if error is not None:
                self._abort(error if isinstance(error, Exception) else self._refusal())
            if self._sourcing is not None:
                self._sourcing.cancel()
                await asyncio.wait({self._sourcing})
            await self._wait_group.wait()
        if self._sourcing is not None and not self._aborted:
            self._sourcing.result()

    async def drain(self, timeout: float | timedelta | None = None) -> bool:
        """
        Take no more in, and wait until every item that was has come out.

        May be called again. Cancelling it leaves the pipeline draining.

        Args:
            timeout: Seconds after which what is left is cancelled: ``results`` then end with an
                ``ItemTimeoutError``. None waits as long as it takes.

        Returns:
            True if all came out, False if the rest was cancelled, now or before.

        Raises:
            ConfigError: If *timeout* is no number of seconds, or the pipeline was not entered.
            Exception: What ended the pipeline, if that was neither a time limit nor the block.
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        if not self._entered:
            raise ConfigError("a pipeline must be entered before it is drained")
        self._close()
        if not self._ended.done():
            await asyncio.wait({self._ended}, timeout=limit)
        if not self._ended.done():
            self._abort(ItemTimeoutError(limit or 0.0, name="work in flight"))
            await self._wait_group.wait()
        if self._failure is not None:
            raise self._failure
        return not self._aborted

    def _chain(self, loop: asyncio.AbstractEventLoop) -> Observable[Envelope]:
        for counters in self._stage_counters:
            counters.begin(loop.time)
        stream = chain(
            self._ingress.pipe(self._failures.throttle),
            self._here,
            queues=self._queues,
            stage_counters=self._stage_counters,
            wait_group=self._wait_group,
            failed=self._on_failure,
            gone=None if self._resubmits is None else self._resubmits.gone,
            ordered=self._ordered,
        )
        return stream if self._handoff is None else stream.pipe(self._handoff)

    async def _feed_all(self, source: Source) -> None:
        try:
            await self.feed(source)
        finally:
            self._close()

    def _close(self) -> None:
        """Take no more in than what feeds have taken from their sources."""
        if self._closing:
            return
        self._closing = True
        self._stop.happen()
        if not self._feeding:
            self._ingress.close()

    def _abort(self, error: Exception) -> None:
        if self._ended.done():
            return
        self._aborted = True
        self._subscription.dispose()
        self._finish(error)

    def _fail(self, error: Exception) -> None:
        self._failure = error
        self._finish(error)

    def _finish(self, error: Exception | None = None) -> None:
        self._ended.set_result(None)
        # What a listener raises at the end must not keep the others from it.
        call_each(
            (
                *(() if self._resubmits is None else (self._resubmits.close,)),
                self._close,
                self._ingress.close,
                self._gate.dispose,
                lambda: self._results.end(error),
                self._failures.end,
                self._over.happen,
            )
        )
