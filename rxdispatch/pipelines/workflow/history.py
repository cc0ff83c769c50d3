"""What workflows return, record and raise."""

from __future__ import annotations

from typing import Any

import attrs

from rxdispatch.errors import TaskExecutionError

__all__ = ["Move", "Transition", "WorkflowError", "WorkflowResult"]


@attrs.frozen(slots=True)
class Move:
    """
    What a state's function returns when it also changes the data.

    Args:
        result: What decides on the next state.
        data: What the next state gets.

    Example:
        >>> Move("ok", {"total": 12}).data
        {'total': 12}
    """

    result: Any
    data: Any


@attrs.frozen(slots=True)
class Transition:
    """
    One entry of a history.

    Attributes:
        source: The state that was left.
        target: The state that was entered.
        result: What the state's function returned; None where it failed.
        at: When, in seconds since 1970 on the clock of the process that ran it.
        attempt: Which try that was, from 1.
        error: ``Type: message`` of what led to the failure state, else an empty string.
    """

    source: str
    target: str
    result: Any
    at: float
    attempt: int
    error: str = ""


@attrs.frozen(slots=True)
class WorkflowResult:
    """
    A workflow that has reached a terminal state.

    Attributes:
        id: Its id.
        state: The terminal state.
        data: What the last state's function made of the data.
        history: Every transition, the first one first.
    """

    id: str
    state: str
    data: Any
    history: tuple[Transition, ...]


class WorkflowError(TaskExecutionError):
    """
    A workflow failed in a state that names no failure state; the error is the ``__cause__``.

    Args:
        task_id: The workflow.
        attempt: Which try it was, from 1; 0 where none was made.
        state: Where it stands.
        history: The transitions up to there.
        why: ``Type: message`` of the error.
    """

    def __init__(
        self, task_id: str, attempt: int, state: str, history: tuple[Transition, ...], why: str
    ) -> None:
        super().__init__(task_id, attempt)
        self.state = state
        self.history = history
        self.why = why
        tries = f" at attempt {attempt}" if attempt else ""
        self.args = (f"workflow {task_id!r} failed in state {state!r}{tries}: {why}",)
