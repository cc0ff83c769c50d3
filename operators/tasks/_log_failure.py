"""``log_failure``: the warning about a failed attempt."""

from __future__ import annotations

from typing import Any

from rxdispatch.claim import Outcome
from rxdispatch.error_text import cause_of
from rxdispatch.log import get_logger

__all__ = ["log_failure"]

log = get_logger(__name__)


def log_failure(outcome: Outcome[Any, Any]) -> None:
    """Log a failed attempt once: which task, why, and what happens next."""
    claim, error = outcome.claim, outcome.error
    assert error is not None
    task = claim.task
    follows: dict[str, Any] = (
        {"delay": round(outcome.delay, 3)}
        if outcome.status == "retry"
        else {"reason": outcome.reason}
    )
    log.warning(
        "attempt_failed",
        board=claim._origin.board.name,
        task=task.id,
        kind=task.kind,
        attempt=claim.attempt,
        status=outcome.status,
        **follows,
        failure=cause_of(error),
    )
