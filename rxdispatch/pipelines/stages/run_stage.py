"""``run_stage``: the operator that runs one stage on envelopes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

from reactivex import Observable, abc, compose
from reactivex.disposable import Disposable

from rxdispatch.errors import ItemTimeoutError
from rxdispatch.operators._function_pool import FunctionPool
from rxdispatch.operators._on_error import SKIPPED, ErrorRule
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._map_blocking import map_blocking
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.stage_error import StageError, stage_error
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.pipelines.stages.stage_call import (
    CarriedError,
    call_many,
    call_one,
    in_pool,
    stage_work,
)
from rxdispatch.pipelines.stages.stats import StageCounters

__all__ = ["Lost", "interrupting", "reporting", "run_stage"]

Operator = Callable[[Observable[Any]], Observable[Any]]
Lost = Callable[[Envelope, StageError | None], Envelope | None]
"""Called with an item that goes no further, and its failure if any; may return a replacement."""


def run_stage(
    stage: Stage,
    *,
    counters: StageCounters,
    wait_group: WaitGroup,
    lost: Lost,
    ordered: bool = False,
    operator: str = "stage",
) -> Callable[[Observable[Envelope]], Observable[Envelope]]:
    """
    Return the operator that does the work of *stage*, without the queue before it.

    Args:
        stage: The stage.
        counters: Count its items.
        wait_group: Counts its coroutines at work.
        lost: Called with each item that does not go on, and with its failure, or None if the item
            is skipped. The envelope that it returns, if any, goes on instead.
        ordered: Emit in the order of arrival.
        operator: The value of ``operator`` in log entries.

    Whatever the function raises is the failure of its item. The stream fails only with errors that
    belong to no item: of a ``Limit``, or of an executor that can no longer run anything. A
    ``KeyboardInterrupt`` of a coroutine is the failure of its item, and ends the loop too.
    """

    def run(source: Observable[Envelope]) -> Observable[Envelope]:
        def subscribe(
            observer: abc.ObserverBase[Envelope], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            # A SystemExit is the failure of its item: it must not end the whole loop.
            rule = ErrorRule(
                stage.on_error, operator, passing=(KeyboardInterrupt,), stage=stage.name
            )
            items = _StageItems(stage, rule, counters, lost, observer)
            mapped, close = _map(stage, items, wait_group, ordered)
            collected = source if stage.batch is None else source.pipe(batch(*stage.batch))
            subscription = collected.pipe(mapped).subscribe(
                items.on_next, observer.on_error, observer.on_completed, scheduler=scheduler
            )

            def dispose() -> None:
                subscription.dispose()
                close()

            items.dispose = dispose
            return Disposable(dispose)

        return Observable(subscribe)

    return run


def _map(
    stage: Stage, items: _StageItems, wait_group: WaitGroup, ordered: bool
) -> tuple[Operator, Callable[[], None]]:
    """Return the bounded map that suits the function, and what to call when it has ended."""
    options: dict[str, Any] = {
        "max_concurrent": stage.max_concurrent,
        "ordered": ordered,
        "on_error": items.on_error,
    }
    if not stage.plain:
        limit = stage.timeout if stage.backoff is None else None
        return map_async(
            stage_work(stage, stage.fn, wait_group, items.counters), timeout=limit, **options
        ), _nothing
    if stage.backoff is None:
        call = partial(call_one if stage.batch is None else call_many, stage.fn)
        mapped = map_blocking(call, executor=stage.executor, timeout=stage.timeout, **options)
        return compose(items.begun, mapped), _nothing
    # Between its attempts an item waits on the loop, not in a thread.
    pool = FunctionPool(stage.executor, stage.slots, on_gone=items.end, label="pipeline")
    work = stage_work(stage, in_pool(stage, pool), wait_group, items.counters)
    return map_async(work, **options), pool.close


def _nothing() -> None:
    pass


def reporting(failed: Callable[[StageError], None]) -> Lost:
    """Return a function that calls *failed* with each failure, and replaces no item."""
    told = interrupting(failed)

    def lost(_: Envelope, failure: StageError | None) -> None:
        if failure is not None:
            told(failure)

    return lost


def interrupting(failed: Callable[[StageError], None]) -> Callable[[StageError], None]:
    """Return a function that calls *failed*, and lets a ``KeyboardInterrupt`` end the loop too."""

    def told(failure: StageError) -> None:
        failed(failure)
        if isinstance(failure.__cause__, KeyboardInterrupt):
            asyncio.get_running_loop().call_soon(_interrupt, failure.__cause__)

    return told


def _interrupt(error: KeyboardInterrupt) -> None:
    raise error


class _StageItems:
    """
    Counts the items of one subscription, and decides what happens to those that failed.

    The map emits an envelope, a list of envelopes, or None for an item that is lost.
    """

    def __init__(
        self,
        stage: Stage,
        rule: ErrorRule,
        counters: StageCounters,
        lost: Lost,
        observer: abc.ObserverBase[Envelope],
    ) -> None:
        self._stage = stage
        self._rule = rule
        self._many = stage.batch is not None
        self.counters = counters
        self._meter = counters.meter
        self._lost = lost
        self._observer = observer
        self._time = asyncio.get_running_loop().time
        #: Ends the subscription; set once it is made.
        self.dispose = _nothing

    def end(self, error: Exception) -> None:
        """End the stream with *error*, which belongs to no item."""
        self.dispose()
        self._observer.on_error(error)

    def begun(self, source: Observable[Any]) -> Observable[Any]:
        """
        Count the items before they go to threads, which cannot count them.

        The map takes no more items than it has slots for, so each of them begins now.
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
        """Count the items that are done, and pass them on."""
        if not load:
            return
        now, counters, meter = self._time(), self.counters, self._meter
        if not self._many:
            counters.left += 1
            meter._leave(now)
            meter._took(now - load.since)
            self._observer.on_next(load)
            return
        meter._took(now - load[0].since)
        counters.left += len(load)
        for envelope in load:
            meter._leave(now)
            self._observer.on_next(envelope)

    # ------------------------------------------------ failures

    def on_error(self, load: Any, error: BaseException) -> Any:
        """Return what goes on in the place of *load*, on which the function failed."""
        if isinstance(error, CarriedError):
            error = error.error
        if isinstance(error, ItemTimeoutError) and error.item is not None:
            # The error has the envelope as its item.
            error = self._timed_out(error, load)
        if not self._many:
            return self._settle(load, error)
        first = load[0].since
        left = [one for envelope in load if (one := self._settle(envelope, error)) is not None]
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
        value, cause = self._rule.resolve(envelope.value, error)
        if cause is None and value is not SKIPPED:
            envelope.value = value
            envelope.attempt = 1
            self.counters.replaced += 1
            return envelope
        failure = None
        if cause is not None:
            failure = stage_error(
                cause, envelope.id, self._stage.name, envelope.value, envelope.attempt
            )
        instead = self._lost(envelope, failure)
        if instead is not None:
            self.counters.replaced += 1
        return instead
