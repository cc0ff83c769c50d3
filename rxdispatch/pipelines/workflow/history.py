"""The results, recorded transitions and errors of workflows."""

from __future__ import annotations

from typing import Any

import attrs

from rxdispatch.errors import TaskExecutionError

__all__ = ["Move", "Transition", "WorkflowError", "WorkflowResult"]


@attrs.frozen(slots=True)
class Move:
    """
    The return value of a state's function that also changes the data.

    Args:
        result: The result, which selects the next state.
        data: The data for the next state.

    Example:
        >>> Move("ok", {"total": 12}).data
        {'total': 12}
    """

    result: Any
    data: Any


@attrs.frozen(slots=True)
class Transition:
    """
    One transition of a workflow, an entry of its history.

    Attributes:
        source: The state that was left.
        target: The state that was entered.
        result: The result of the state's function; None if it failed.
        at: When it happened, in seconds since 1970 on the clock of the process that ran the state.
        attempt: The number of the attempt, from 1.
        error: ``Type: message`` of the error that led to the failure state; otherwise empty.
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
    The result of a workflow that has reached a terminal state.

    Attributes:
        id: Its id.
        state: The terminal state.
        data: The data after the last state.
        history: All transitions, in order.
    """

    id: str
    state: str
    data: Any
    history: tuple[Transition, ...]


class WorkflowError(TaskExecutionError):
    """
    A workflow failed in a state without a failure state; the error is the ``__cause__``.

    Args:
        task_id: The id of the workflow.
        attempt: The number of the attempt, from 1; 0 if there was none, or it is not known.
        state: The state that it failed in.
        history: The transitions up to then.
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
