"""``check_outcome``: refuses items that ``settle`` cannot write."""

from __future__ import annotations

from typing import Any, Final

from rxdispatch.claim import Claim, Outcome, Settlement
from rxdispatch.errors import ConfigError
from rxdispatch.task import Task

__all__ = ["check_outcome"]

_HINTS: Final[dict[type, str]] = {
    type(None): "; does a function above it forget to return the outcome?",
    Claim: "; put execute above it",
    Task: "; put execute above it",
    Settlement: "; pass settlements to board.settle",
}


def check_outcome(outcome: Any, board: str) -> None:
    """
    Check that ``settle`` can write *outcome* to *board*.

    Raises:
        ConfigError: If it is not an outcome, has an unknown status, or is of another board.
    """
    given: object = outcome
    kind = type(given)
    if not issubclass(kind, Outcome):
        hint = next((text for cls, text in _HINTS.items() if issubclass(kind, cls)), "")
        # Only its type: it may be a task, with a payload.
        raise ConfigError(f"settle must be given outcomes, got {kind.__name__}{hint}")
    outcome.check()
    claim: Any = outcome.claim
    if not isinstance(claim, Claim):
        raise ConfigError("outcome.claim must be a claim", type(claim).__name__)
    owner = claim._origin.board
    if owner.name != board:
        raise ConfigError(f"settle must be given outcomes of board {board!r}", owner.name)
