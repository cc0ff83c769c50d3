"""``Policy``: what becomes of an item that failed in a node of a graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rxdispatch.errors import ItemTimeoutError
from rxdispatch.log import get_logger
from rxdispatch.operators._function_pool import HandlerCrashedError
from rxdispatch.pipelines.graph.model import Gap, Vertex
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.stages.stage import StageCrashedError, StageError

__all__ = ["Policy"]

log = get_logger(__name__)


class Policy:
    """
    The ``on_error`` of a node, as a function of an envelope and the error.

    It returns the replacement, or ``Gap``: that takes the place of the item, so that a zip
    further on does not pair what does not belong together, or wait for what never comes.

    Args:
        vertex: The node.
        failed: Called with each failure.
    """

    def __init__(self, vertex: Vertex, failed: Callable[[StageError], None]) -> None:
        self._vertex = vertex
        self._failed = failed
        self._skipped = 0

    def __call__(self, envelope: Envelope, error: BaseException) -> Any:
        """Return what goes on instead."""
        stage = self._vertex.stage
        policy = stage.on_error
        if isinstance(error, ItemTimeoutError) and error.item is envelope:
            cause = error.__cause__
            error = ItemTimeoutError(error.seconds, envelope.value, repr(envelope.id))
            error.__cause__ = cause
        if policy == "skip":
            self._skipped += 1
            log.warning(
                "item_skipped",
                operator="graph",
                stage=stage.name,
                skipped=self._skipped,
                failure=error,
            )
            return Gap
        if policy != "fail":
            try:
                return self._vertex.work.checked(policy(envelope.value, error))
            except BaseException as worse:
                if worse.__context__ is None and worse is not error:
                    worse.__context__ = error
                error = worse
        attempts = 1 if stage.retry is None else stage.retry.attempts or 1
        kind = StageCrashedError if isinstance(error, HandlerCrashedError) else StageError
        failure = kind(envelope.id, attempts, stage.name, envelope.value)
        failure.__cause__ = error
        self._failed(failure)
        return Gap
