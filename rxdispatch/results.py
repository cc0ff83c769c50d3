"""What boards return and report: results, counts, states, dead letters and events."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Literal, TypeVar

import attrs
from msgspec import Struct

from rxdispatch.claim import Claim
from rxdispatch.task import Status, Task

__all__ = [
    "BoardStats",
    "ClaimBatch",
    "Counts",
    "DeadLetter",
    "EventKind",
    "KindState",
    "SubmitResult",
    "TaskEvent",
    "TaskState",
]

P = TypeVar("P")

EventKind = Literal[
    "submitted",
    "claimed",
    "done",
    "retried",
    "released",
    "crashed",
    "dead",
    "redriven",
    "discarded",
    "undelivered",
]


@attrs.frozen(slots=True, kw_only=True)
class BoardStats:
    """
    The counters of one handle on a board; two handles on a board count separately.

    Args:
        settled: Claims that this handle ended.
        refused: Settlements that the board refused because the token was no longer valid: another
            worker may do, or may have done, the same task again.
        lost: Claims whose token a renewal found to be no longer valid, or that were cancelled.
        epochs: How many other servers took over the board, by a failover or a start, while this
            handle was in use.
        undelivered: Tasks that were handed to a worker, which did not confirm them in time, as
            this handle has found. Where the number grows, a host freezes, or a loop is blocked.
    """

    settled: int
    refused: int
    lost: int
    epochs: int = 0
    undelivered: int = 0


@attrs.frozen(slots=True)
class SubmitResult:
    """The ids that a submit added, and the ids that were duplicates, each in the order given."""

    accepted: tuple[str, ...]
    duplicates: tuple[str, ...]


@attrs.frozen(slots=True)
class ClaimBatch:
    """
    The reply to one claim.

    Attributes:
        claims: The claimed tasks.
        due_in: Seconds until the next scheduled task is ready; None when there is none.
        handed: Tasks that were handed over before; the worker has to confirm them.
        parked: How many workers wait on the board.
    """

    claims: list[Claim[Any]]
    due_in: float | None
    handed: Sequence[Claim[Any]] = ()
    parked: int = 0


@attrs.frozen(slots=True)
class Counts:
    """How many tasks have each mark; ``done`` is a running total."""

    scheduled: int
    ready: int
    claimed: int
    done: int
    dead: int


@attrs.frozen(slots=True)
class KindState:
    """
    The tasks of one kind.

    Attributes:
        unfinished: How many are scheduled, ready or claimed.
        paused: Whether the kind is paused; the pause of the whole board does not count.
    """

    unfinished: int
    paused: bool


@attrs.frozen(slots=True)
class TaskState:
    """
    The state of one task.

    Attributes:
        status: Its mark.
        attempts: Failed attempts, plus the running one if it is claimed.
        crashes: How many of its leases lapsed because a worker died or blocked.
        worker: The worker that holds it, if it is claimed.
        created_at: When it was submitted, in seconds since 1970 on the submitter's clock; 0 for a
            done task whose id the board still remembers, and if the stored task cannot be read.
        error: The last error, as ``Type: message``.
    """

    id: str
    status: Status
    attempts: int
    crashes: int
    worker: str | None
    created_at: float
    error: str | None


@attrs.frozen(slots=True)
class DeadLetter(Generic[P]):
    """
    A task that will not be tried again.

    Attributes:
        task: The task as it was submitted.
        reason: ``failed``, ``crashed``, ``expired``, ``cancelled``, ``undecodable``, or a reason
            that the handler gave.
        error: The last error as ``Type: message``, or an empty string.
        attempts: Failed attempts.
        crashes: How many of its leases lapsed because a worker died or blocked.
        at: When the task died, in seconds since 1970 on the server's clock.
        traceback: The end of the last error's traceback, with its causes and the parts of
            exception groups, but no local variables: at most 8 KiB, in shared memory 2 KiB. Empty
            if the task did not die of an exception.
    """

    task: Task[P]
    reason: str
    error: str
    attempts: int
    crashes: int
    at: float
    traceback: str = ""


class TaskEvent(Struct, frozen=True, gc=False):
    """
    Something that happened to a task, in any process.

    Attributes:
        kind: What happened.
        task_id: The task.
        worker: The worker, if a claim was involved.
        token: The token, if a claim was involved.
        attempt: The attempt, if a claim was involved.
        at: When it happened, in seconds since 1970 on the server's clock.
        reason: Why the task died, for ``dead``.
        task_kind: The kind of the task; ``default`` also for a task whose record is gone.
    """

    kind: EventKind
    task_id: str
    worker: str | None
    token: int | None
    attempt: int | None
    at: float
    reason: str | None = None
    task_kind: str = "default"
