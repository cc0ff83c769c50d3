"""What a pipeline has counted, by stage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs
import reactivex
from reactivex import Observable
from reactivex import operators as rx

from rxdispatch.clock import LoopScheduler
from rxdispatch.operators.flow._meter import Latency, Meter, MeteredStream
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.protocols import Limit

__all__ = ["PipelineStats", "StageCounters", "StageStats", "every", "read_stages"]


@attrs.frozen(slots=True, kw_only=True)
class StageStats:
    """
    What a stage showed at one moment.

    Args:
        name: Its name.
        queued: How many items wait for it, those that a batch collects included.
        in_flight: How many are at work, waits before another try included.
        limit: How many calls may be at work now.
        done: How many it has done.
        failed: How many failed, whatever ``on_error`` made of them.
        rate: Items a second that it did, over the last 5 to 10 s.
        latency: From the first try to the result, without the wait before it; of a batch once.
    """

    name: str
    queued: int
    in_flight: int
    limit: int
    done: int
    failed: int
    rate: float
    latency: Latency


@attrs.frozen(slots=True, kw_only=True)
class PipelineStats:
    """
    What a pipeline showed at one moment.

    Args:
        submitted: How many items were submitted or fed, from whatever place they had found.
        results: How many have come out, whether or not anybody listened.
        failed: How many failed in some stage; those that something else replaced are among both.
        stages: What each stage showed, by name and in order.
    """

    submitted: int
    results: int
    failed: int
    stages: Mapping[str, StageStats]


class StageCounters:
    """What is counted of one stage, on the loop."""

    __slots__ = ("failed", "left", "meter", "replaced", "started")

    def __init__(self, name: str) -> None:
        self.meter = Meter(name)
        #: Items whose work began, that came out, that failed, that came out although they failed.
        self.started = self.left = self.failed = self.replaced = 0

    def begin(self, time: Callable[[], float]) -> None:
        """Begin to count, on this clock."""
        self.meter.begin(MeteredStream(), time)

    def read(self, limit: int, arrived: int) -> StageStats:
        """Return what it shows, when *arrived* items have come to the stage."""
        seen = self.meter.read()
        ended = self.left + self.failed - self.replaced
        return StageStats(
            name=self.meter.name,
            queued=max(0, arrived - self.started),
            in_flight=self.started - ended,
            limit=limit,
            done=self.left - self.replaced,
            failed=self.failed,
            rate=seen.rate,
            latency=seen.latency,
        )


def read_stages(
    stages: Sequence[Stage], stage_counters: Sequence[StageCounters], submitted: int, emitted: int
) -> PipelineStats:
    """Return what *stages*, in a row, show now."""
    arrived = submitted
    found: dict[str, Any] = {}
    for stage, counters in zip(stages, stage_counters, strict=True):
        limit = stage.max_concurrent
        slots = limit.limit if isinstance(limit, Limit) else limit
        found[stage.name] = counters.read(slots, arrived)
        arrived = counters.left
    return PipelineStats(
        submitted=submitted,
        results=emitted,
        failed=sum(counters.failed for counters in stage_counters),
        stages=MappingProxyType(found),
    )


def every(
    period: float, over: Observable[Any], read: Callable[[], PipelineStats]
) -> Observable[PipelineStats]:
    """Return what *read* returns at once, every *period* seconds, and when *over* emits."""

    def start(_: Any) -> Observable[Any]:
        clock = LoopScheduler(asyncio.get_running_loop())
        return reactivex.timer(0.0, period, scheduler=clock)

    ticks: Observable[Any] = reactivex.defer(start).pipe(rx.take_until(over))
    return ticks.pipe(rx.concat(reactivex.of(None)), rx.map(lambda _: read()))
