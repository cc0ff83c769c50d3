"""``run_stage``: one stage, as an operator on envelopes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from reactivex import Observable, abc, compose
from reactivex.disposable import Disposable

from rxdispatch.errors import ItemTimeoutError
from rxdispatch.log import get_logger
from rxdispatch.operators._function_pool import FunctionPool, HandlerCrashedError
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._map_blocking import map_blocking
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.pipelines.stages.stage import Stage, StageCrashedError, StageError
from rxdispatch.pipelines.stages.stage_call import (
    CarriedError,
    call_many,
    call_one,
    in_pool,
    work_of,
)
from rxdispatch.pipelines.stages.stats import StageCounters

__all__ = ["Gone", "interrupting", "run_stage"]

log = get_logger(__name__)

Operator = Callable[[Observable[Any]], Observable[Any]]
Gone = Callable[[Envelope, StageError | None], None]


def run_stage(
    stage: Stage,
    *,
    counters: StageCounters,
    wait_group: WaitGroup,
    failed: Callable[[StageError], None],
    gone: Gone | None = None,
    ordered: bool = False,
) -> Callable[[Observable[Envelope]], Observable[Envelope]]:
    """
    Return the operator that does the work of *stage*, without the queue before it.

    Args:
        stage: The stage.
        counters: Where items are counted.
        wait_group: Where coroutines are counted that are at work.
        failed: Called with each failure that ``on_error`` does not settle.
        gone: Called with each item that does not go on, and with its failure if it has one, which
            *failed* is then not told of.
        ordered: Emit in the order of arrival.

    Whatever the function raises is the failure of its item. The stream ends with an error only
    where that is none of an item's: one of a ``Limit``, or of an executor that can run nothing any
    more. A ``KeyboardInterrupt`` of a coroutine is the failure of its item, and ends the loop too.
    """

    def operator(source: Observable[Envelope]) -> Observable[Envelope]:
        def subscribe(
            observer: abc.ObserverBase[Envelope], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            run = _Run(stage, counters, gone or _only(failed), observer)
            mapped, close = _map(stage, run, wait_group, ordered)
            collected = source if stage.batch is None else source.pipe(batch(*stage.batch))
            subscription = collected.pipe(mapped).subscribe(
                run.on_next, observer.on_error, observer.on_completed, scheduler=scheduler
            )

            def dispose() -> None:
                subscription.dispose()
                close()

            run.dispose = dispose
            return Disposable(dispose)

        return Observable(subscribe)

    return operator


def _map(
    stage: Stage, run: _Run, wait_group: WaitGroup, ordered: bool
) -> tuple[Operator, Callable[[], None]]:
    """Return the bounded map that fits the function, and what to call when it has ended."""
    options: dict[str, Any] = {
        "max_concurrent": stage.concurrency,
        "ordered": ordered,
        "on_error": run.on_error,
    }
    if not stage.plain:
        limit = stage.timeout if stage.retry is None else None
        return map_async(
            work_of(stage, stage.fn, wait_group, run.counters), timeout=limit, **options
        ), _nothing
    if stage.retry is None:
        call = partial(call_one if stage.batch is None else call_many, stage.fn)
        mapped = map_blocking(call, executor=stage.executor, timeout=stage.timeout, **options)
        return compose(run.begun, mapped), _nothing
    # Between its tries an item waits on the loop, and not in a thread.
    pool = FunctionPool(stage.executor, stage.slots, on_gone=run.end, label="pipeline")
    work = work_of(stage, in_pool(stage, pool), wait_group, run.counters)
    return map_async(work, **options), pool.close


def _nothing() -> None:
    pass


def _only(failed: Callable[[StageError], None]) -> Gone:
    told = interrupting(failed)

    def gone(_: Envelope, failure: StageError | None) -> None:
        if failure is not None:
            told(failure)

    return gone


def interrupting(failed: Callable[[StageError], None]) -> Callable[[StageError], None]:
    """Return *failed*, after which a ``KeyboardInterrupt`` goes on to the loop."""

    def told(failure: StageError) -> None:
        failed(failure)
        if isinstance(failure.__cause__, KeyboardInterrupt):
            asyncio.get_running_loop().call_soon(_interrupt, failure.__cause__)

    return told


def _interrupt(error: KeyboardInterrupt) -> None:
    """Let *error* out of the loop, which it was meant for."""
    raise error


class _Run:
    """
    One subscription.

    What the map emits is an envelope, None for one that failed, or a list of envelopes.
    """

    def __init__(
        self,
        stage: Stage,
        counters: StageCounters,
        gone: Gone,
        observer: abc.ObserverBase[Envelope],
    ) -> None:
        self._stage = stage
        self._many = stage.batch is not None
        self.counters = counters
        self._meter = counters.meter
        self._gone = gone
        self._observer = observer
        self._time = asyncio.get_running_loop().time
        self._skipped = 0
        #: Ends the subscription.
        self.dispose = _nothing

    def end(self, error: Exception) -> None:
        """End the stream with *error*, which is that of no item."""
        self.dispose()
        self._observer.on_error(error)

    def begun(self, source: Observable[Any]) -> Observable[Any]:
        """
        Count what goes to work in threads, which cannot do so themselves.

        The map is handed no more than it has slots for.
        """

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            return source.subscribe(
                partial(self._begin, observer.on_next),
                observer.on_error,
                observer.on_completed,
                scheduler=scheduler,
            )

        return Observable(subscribe)

    def _begin(self, on_next: Callable[[Any], None], load: Any) -> None:
        if self._many:
            self.counters.started += len(load)
            load[0].since = self._time()
        else:
            self.counters.started += 1
            load.since = self._time()
        on_next(load)

    def on_next(self, load: Any) -> None:
        """Count what was done, and pass it on."""
        if not load:
            return
        now, counters, meter = self._time(), self.counters, self._meter
        if not self._many:
            counters.left += 1
            meter.leave(now)
            meter.took(now - load.since)
            self._observer.on_next(load)
            return
        meter.took(now - load[0].since)
        counters.left += len(load)
        for envelope in load:
            meter.leave(now)
            self._observer.on_next(envelope)

    # ------------------------------------------------ what failed

    def on_error(self, load: Any, error: BaseException) -> Any:
        """Return what goes on although the work on *load* failed."""
        if isinstance(error, CarriedError):
            error = error.error
        if isinstance(error, ItemTimeoutError) and error.item is not None:
            # It names the envelope.
            error = self._timed_out(error, load)
        if not self._many:
            return self._settle(load, error)
        first = load[0].since
        left = [envelope for envelope in load if self._settle(envelope, error)]
        if left:
            left[0].since = first
        return left

    def _timed_out(self, error: ItemTimeoutError, load: Any) -> ItemTimeoutError:
        if self._many:
            item: Any = [envelope.value for envelope in load]
            name = f"a batch of {len(load)} items"
        else:
            item, name = load.value, repr(load.id)
        plain = ItemTimeoutError(error.seconds, item, name)
        plain.__cause__ = error.__cause__
        return plain

    def _settle(self, envelope: Envelope, error: BaseException) -> Envelope | None:
        self.counters.failed += 1
        policy, name = self._stage.on_error, self._stage.name
        if isinstance(error, KeyboardInterrupt):
            policy = "fail"
        if policy == "skip":
            self._skipped += 1
            log.warning(
                "item_skipped",
                operator="stage",
                stage=name,
                skipped=self._skipped,
                failure=error,
            )
            self._gone(envelope, None)
            return None
        if policy != "fail":
            try:
                envelope.value = policy(envelope.value, error)
            except BaseException as worse:
                if worse.__context__ is None and worse is not error:
                    worse.__context__ = error
                error = worse
            else:
                envelope.attempt = 1
                self.counters.replaced += 1
                return envelope
        kind = StageCrashedError if isinstance(error, HandlerCrashedError) else StageError
        failure = kind(envelope.id, envelope.attempt, name, envelope.value)
        failure.__cause__ = error
        self._gone(envelope, failure)
        return None
