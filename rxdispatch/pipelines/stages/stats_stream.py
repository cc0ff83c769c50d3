"""Snapshots of a pipeline: of now, and again and again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from types import MappingProxyType
from typing import Any

import reactivex
from reactivex import Observable
from reactivex import operators as rx

from rxdispatch.clock import LoopScheduler
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.pipelines.stages.stats import PipelineStats, StageCounters
from rxdispatch.protocols import Limit

__all__ = ["every", "read_stages"]


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
