"""What is logged of attempts that fail."""

from __future__ import annotations

from typing import Any

from rxdispatch.claim import Outcome
from rxdispatch.failure import cause_of
from rxdispatch.log import get_logger

__all__ = ["log_failure"]

log = get_logger(__name__)


def log_failure(outcome: Outcome[Any, Any]) -> None:
    """Write the one warning of a failed attempt: which, why, and what comes next."""
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
        board=claim.custody.board.name,
        task=task.id,
        kind=task.kind,
        attempt=claim.attempt,
        status=outcome.status,
        **follows,
        failure=cause_of(error),
    )
