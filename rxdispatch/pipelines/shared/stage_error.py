"""``StageError``: the failure of an item in a stage or a node."""

from __future__ import annotations

from typing import Any

from rxdispatch.errors import TaskExecutionError
from rxdispatch.log import get_logger
from rxdispatch.operators._function_pool import HandlerCrashedError
from rxdispatch.pipelines.shared.output import Output

__all__ = ["StageCrashedError", "StageError", "report", "stage_error"]

log = get_logger(__name__)


class StageError(TaskExecutionError):
    """
    An item failed in a stage of a pipeline, or a node of a graph; the error is the ``__cause__``.

    Args:
        task_id: The item's id.
        attempt: The number of the attempt, from 1.
        stage: The name of the stage.
        item: The item as it came into that stage; not part of the message.

    Attributes:
        round: How often the item was submitted; more than once only if *resubmit* asked for it.
    """

    round: int = 1

    def __init__(self, task_id: str, attempt: int, stage: str, item: Any) -> None:
        super().__init__(task_id, attempt)
        self.stage = stage
        self.item = item
        self.args = (f"item {task_id!r} failed in stage {stage!r} at attempt {attempt}",)


class StageCrashedError(StageError, HandlerCrashedError):
    """A stage's function killed its process while it ran there alone, so its item is the cause."""


def stage_error(
    cause: BaseException, item_id: str, stage: str, item: Any, attempt: int = 1
) -> StageError:
    """Return the failure of *item*, with *cause* as its ``__cause__``."""
    kind = StageCrashedError if isinstance(cause, HandlerCrashedError) else StageError
    failure = kind(item_id, attempt, stage, item)
    failure.__cause__ = cause
    return failure


def report(failures: Output[StageError], failure: StageError) -> None:
    """Emit *failure* to the subscribers of *failures*; log it while there are none."""
    if failures.open:
        failures.emit(failure)
        return
    log.warning(
        "item_failed",
        stage=failure.stage,
        item=failure.task_id,
        failure=failure.__cause__,
    )
