"""``chain``: the stages that run in one place, one after the other."""

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

__all__ = ["chain", "until_board", "waiting"]

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
    Return what *source* becomes in *stages*, each with the queue before it.

    Args:
        source: Also the queue of the first stage.
        stages: In order; there may be none.
        queues: How many items may wait for each.
        stage_counters: Where the items of each are counted.
        wait_group: Where coroutines are counted that are at work.
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


def waiting(stages: Sequence[Stage]) -> list[int]:
    """
    Return how many items may wait for each of *stages*.

    A stage ends what it has at work at about the same time: the next one must be able to take all
    of that, or it stands still later.
    """
    before = [MIN_QUEUE, *(stage.burst for stage in stages)]
    return [
        stage.queue_size or max(MIN_QUEUE, stage.burst, burst)
        for stage, burst in zip(stages, before, strict=False)
    ]


def until_board(stages: Sequence[Any]) -> int:
    """Return how many of *stages* come before the first one with a board."""
    return next((n for n, stage in enumerate(stages) if stage.board is not None), len(stages))
