"""``Claim``: a task in the hands of one worker, and the ways in which it ends."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, get_args

from msgspec import Struct

from rxdispatch.errors import ConfigError
from rxdispatch.failure import ERROR_LIMIT, cut, describe, traceback_text
from rxdispatch.seconds import seconds
from rxdispatch.task import Task

__all__ = [
    "Claim",
    "Outcome",
    "OutcomeStatus",
    "Settlement",
    "SettlementKind",
    "current",
]

P = TypeVar("P")
R = TypeVar("R")

SettlementKind = Literal["done", "retry", "dead", "released"]
OutcomeStatus = Literal["done", "retry", "dead", "released", "lost"]


class Custody(Protocol):
    """What a board lends to the claims of one batch: who holds them, where, by which clock."""

    board: Any
    worker: str
    clock: Callable[[], float]

    def give_back(self, claims: list[Claim[Any]], delay: float = 0.0) -> None:
        """Release *claims* in the background."""
        ...


class Holder(Protocol):
    """Who keeps something for claims, such as their renewal, and must hear when one has ended."""

    @property
    def out(self) -> int:
        """How many claims it holds."""
        ...

    def settled(self, claim: Claim[Any]) -> None:
        """Forget *claim*: it is settled, or lost."""
        ...


class Held(Protocol):
    """What a holder notes of one claim, which outlives the claim."""

    began: bool


class Claim(Struct, Generic[P], eq=False, weakref=True):
    """
    A task that this worker holds until its lease runs out.

    Made by boards, never by hand. A claim ends with exactly one of :meth:`done`,
    :meth:`retry`, :meth:`dead` or :meth:`release`, handed to ``board.settle``.

    Attributes:
        task: The task.
        token: Unique on the board and only growing; every later write names it.
        attempt: Which try this is, from 1.
        crashes: How often a worker of this task died.
    """

    task: Task[P]
    token: int
    attempt: int
    crashes: int
    custody: Custody
    deadline: float
    revoked: bool = False
    told: OutcomeStatus | None = None
    settling: bool = False
    answer: tuple[SettlementKind, bool] | None = None
    on_revoke: Callable[[OutcomeStatus], None] | None = None
    holder: Holder | None = None
    held: Held | None = None

    def __repr__(self) -> str:
        return (
            f"Claim(task={self.task!r}, token={self.token}, attempt={self.attempt},"
            f" crashes={self.crashes})"
        )

    @property
    def worker(self) -> str:
        """The label of the worker that claimed it."""
        return self.custody.worker

    @property
    def lost(self) -> bool:
        """True when renewal said so, or when the lease passed without a confirmation."""
        return self.revoked or (self.answer is None and self.custody.clock() >= self.deadline)

    def done(self) -> Settlement:
        """The task is finished."""
        return Settlement(self, "done")

    def retry(self, error: BaseException | str, delay: float = 0.0) -> Settlement:
        """
        The attempt failed; try again after *delay* seconds, or die at ``max_attempts``.

        Raises:
            ConfigError: If *delay* is negative or not finite, or *error* is neither an exception
                nor a str.
        """
        words, traceback = _told(self, error)
        return Settlement(self, "retry", words, seconds("delay", delay), "failed", traceback)

    def dead(self, reason: str, error: BaseException | str = "") -> Settlement:
        """
        The task is not to be tried again; *reason* says why, in up to 200 characters.

        Of an exception the dead letter keeps type, message and the end of its traceback.

        Raises:
            ConfigError: If *reason* is empty, or an argument is of another type.
        """
        if not isinstance(reason, str) or not reason:
            raise ConfigError("reason must be a str that is not empty", reason)
        words, traceback = _told(self, error, final=True)
        return Settlement(
            self, "dead", words, reason=cut(reason, REASON_LIMIT), traceback=traceback
        )

    def release(self, delay: float = 0.0) -> Settlement:
        """Give the task back untouched: it keeps its place and nothing is counted."""
        return Settlement(self, "released", delay=seconds("delay", delay))

    def revoke(self, status: OutcomeStatus) -> None:
        """Tell whoever works on this claim to stop; *status* is ``lost`` or ``released``."""
        self.revoked = self.revoked or status == "lost"
        # Kept for who gets the claim only later: it may wait in a buffer.
        self.told = self.told or status
        stop, self.on_revoke = self.on_revoke, None
        if stop is not None:
            stop(status)
        if status == "lost" and self.holder is not None:
            self.holder.settled(self)


current: ContextVar[Claim[Any]] = ContextVar("rxdispatch_claim")
"""The claim whose handler is running; here, so that tracing finds it without the operators."""

REASON_LIMIT: Final = 200
_STATUSES: Final[tuple[str, ...]] = get_args(OutcomeStatus)


def _told(claim: Claim[Any], error: BaseException | str, *, final: bool = False) -> tuple[str, str]:
    """
    Return what is stored of *error*: type and message, and the traceback if the task may die.

    A retry is a death where no attempt is left, and may be one where the task has a ttl.
    """
    if isinstance(error, str):
        return cut(error, ERROR_LIMIT), ""
    if not isinstance(error, BaseException):
        raise ConfigError("error must be an exception or a str", error)
    task = claim.task
    final = final or claim.attempt >= task.max_attempts or task.ttl is not None
    return describe(error), traceback_text(error) if final else ""


class Settlement(Struct, eq=False, gc=False):
    """
    How a claim ends; made by the methods of :class:`Claim`.

    Attributes:
        claim: The claim.
        kind: What was asked for.
        error: ``Type: message`` of what went wrong.
        delay: Seconds until it is ready again.
        reason: Why it is dead, if it is.
        traceback: The end of the error's traceback; boards keep it with dead tasks only.
    """

    claim: Claim[Any]
    kind: SettlementKind
    error: str = ""
    delay: float = 0.0
    reason: str = ""
    traceback: str = ""

    @property
    def verdict(self) -> SettlementKind:
        """What is written; a retry without an attempt left is a death."""
        claim = self.claim
        if self.kind == "retry" and claim.attempt >= claim.task.max_attempts:
            return "dead"
        return self.kind


class Outcome(Struct, Generic[P, R], eq=False, weakref=True):
    """
    What a handler made of a claim.

    Attributes:
        claim: The claim.
        status: ``done``, ``retry``, ``dead``, ``released`` or ``lost``.
        result: What the handler returned, when done.
        error: A ``TaskExecutionError`` whose cause is the handler's error, when it failed.
        duration: Seconds the handler took.
        delay: Seconds to wait before a retry.
        reason: Why it is dead.
    """

    claim: Claim[P]
    status: OutcomeStatus
    result: R | None = None
    error: BaseException | None = None
    duration: float = 0.0
    delay: float = 0.0
    reason: str = ""

    def check(self) -> None:
        """
        Refuse what a function between ``execute`` and ``settle`` cannot have meant.

        Raises:
            ConfigError: If the status is none, or *delay*, *reason* or *error* break their rule.
        """
        if self.status.__class__ is not str or self.status not in _STATUSES:
            raise ConfigError(f"outcome.status must be one of {', '.join(_STATUSES)}", self.status)
        seconds("outcome.delay", self.delay)
        if not isinstance(self.reason, str):
            raise ConfigError("outcome.reason must be a str", self.reason)
        if self.error is not None and not isinstance(self.error, (BaseException, str)):
            raise ConfigError("outcome.error must be an exception or None", type(self.error))

    def settlement(self) -> Settlement | None:
        """
        The settlement that writes this outcome to its board; None when the claim is lost.

        Raises:
            ConfigError: As :meth:`check`.
        """
        claim = self.claim
        if self.status == "done":
            return Settlement(claim, "done")
        if self.status == "lost":
            return None
        self.check()
        if self.status == "released":
            return Settlement(claim, "released", delay=self.delay)
        error = "" if self.error is None else self.error
        words, traceback = _told(claim, error, final=self.status == "dead")
        reason = cut(self.reason or "failed", REASON_LIMIT)
        return Settlement(claim, self.status, words, self.delay, reason, traceback)
