"""Counters and snapshots of a pipeline, by stage."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import attrs

from rxdispatch.operators.flow._meter import Latency, Meter, MeteredStream
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.protocols import Limit

__all__ = ["PipelineStats", "StageCounters", "StageStats", "read_stages"]


@attrs.frozen(slots=True, kw_only=True)
class StageStats:
    """
    A snapshot of one stage.

    Args:
        name: Its name.
        queued: How many items wait for it, including those that a batch collects.
        in_flight: How many items are at work, including those that wait for another attempt.
        limit: How many calls may be at work now.
        done: How many items it has completed.
        failed: How many items failed, whatever ``on_error`` did with them.
        rate: Items completed per second, over the last 5 to 10 s.
        latency: From the first attempt to the result, without the time in the queue; a batch counts
            once.
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
    A snapshot of a pipeline.

    Args:
        submitted: How many items have entered, by ``submit`` or a source.
        results: How many have come out, with or without a subscriber.
        failed: How many failed in a stage. An item that ``on_error`` replaced counts here, and also
            as a result if it came out.
        stages: The snapshot of each stage, by name and in order.
    """

    submitted: int
    results: int
    failed: int
    stages: Mapping[str, StageStats]


class StageCounters:
    """The counters of one stage; only the loop changes them."""

    __slots__ = ("failed", "left", "meter", "replaced", "started")

    def __init__(self, name: str) -> None:
        self.meter = Meter(name)
        #: Items that began, that came out, that failed, and that came out after they had failed.
        self.started = self.left = self.failed = self.replaced = 0

    def begin(self, time: Callable[[], float]) -> None:
        """Begin to count, on the clock *time*."""
        self.meter._begin(MeteredStream(), time)

    def read(self, limit: int, arrived: int) -> StageStats:
        """Return a snapshot, given how many items have arrived at the stage."""
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
    """Return a snapshot of *stages*, each of which feeds the next."""
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
