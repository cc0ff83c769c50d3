"""``chain``: connects the stages that run in one process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from reactivex import Observable

from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.output import MIN_QUEUE
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.pipelines.stages.run_stage import Lost, run_stage
from rxdispatch.pipelines.stages.stage import Stage
from rxdispatch.pipelines.stages.stats import StageCounters

__all__ = ["chain", "queue_sizes", "stages_before_board"]

Operator = Callable[[Observable[Envelope]], Observable[Envelope]]


def chain(
    source: Observable[Envelope],
    stages: Sequence[Stage],
    *,
    queues: Sequence[int],
    stage_counters: Sequence[StageCounters],
    wait_group: WaitGroup,
    lost: Lost,
    ordered: bool = False,
) -> Observable[Envelope]:
    """
    Return *source* piped through *stages*, with a bounded queue before each but the first.

    Args:
        source: The items; also the queue of the first stage.
        stages: The stages in order; may be empty.
        queues: The size of the queue before each stage.
        stage_counters: Count the items of each stage.
        wait_group: Counts the coroutines at work.
        lost: As for :func:`run_stage`.
        ordered: Emit in the order of arrival.
    """
    stream = source
    for place, (stage, size, counters) in enumerate(
        zip(stages, queues, stage_counters, strict=True)
    ):
        if place:
            queue: Operator = buffer_bounded(size)
            stream = stream.pipe(queue)
        stream = stream.pipe(
            run_stage(
                stage,
                counters=counters,
                wait_group=wait_group,
                lost=lost,
                ordered=ordered,
            )
        )
    return stream


def queue_sizes(stages: Sequence[Stage]) -> list[int]:
    """
    Return how many items may wait for each of *stages*.

    A stage may finish all of its items at about the same time. The queue after it must have room
    for all of them; otherwise the stage stalls later.
    """
    before = [MIN_QUEUE, *(stage.burst for stage in stages)]
    return [
        stage.queue_size or max(MIN_QUEUE, stage.burst, burst)
        for stage, burst in zip(stages, before, strict=False)
    ]


def stages_before_board(stages: Sequence[Any]) -> int:
    """Return how many of *stages* come before the first one with a board."""
    return next((n for n, stage in enumerate(stages) if stage.board is not None), len(stages))
