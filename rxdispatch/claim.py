"""``Claim``: a task that one worker holds, how the claim ends, and what follows."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from datetime import timedelta
from typing import Any, Final, Generic, Literal, Protocol, TypeVar, get_args

import attrs
from msgspec import Struct

from rxdispatch.error_text import ERROR_LIMIT, cut, describe, traceback_text
from rxdispatch.errors import ConfigError
from rxdispatch.retry_or_dead import retry_or_dead
from rxdispatch.seconds import seconds
from rxdispatch.task import Task

__all__ = [
    "ANSWERED",
    "LOST",
    "STOPPED",
    "Change",
    "Claim",
    "ClaimOrigin",
    "ClaimRef",
    "Outcome",
    "OutcomeStatus",
    "Settlement",
    "SettlementKind",
    "Watcher",
    "current",
]

P = TypeVar("P")
R = TypeVar("R")

SettlementKind = Literal["done", "retry", "dead", "released"]
OutcomeStatus = Literal["done", "retry", "dead", "released", "lost"]
Change = Literal["recalled", "lost", "settled", "abandoned"]

REASON_LIMIT: Final = 200
_STATUSES: Final[tuple[str, ...]] = get_args(OutcomeStatus)

HELD: Final = 0
SETTLING, RECALLED, LOST, REFUSED, SETTLED = (1 << bit for bit in range(5))
STOPPED: Final = RECALLED | LOST
ANSWERED: Final = REFUSED | SETTLED


class Watcher(Protocol):
    """An object that holds something for a claim: its lease, its slot or its handler."""

    def claim_changed(self, claim: Claim[Any], change: Change) -> None:
        """React to *change*: release what is held for *claim*, or stop its handler."""
        ...


@attrs.define(slots=True, eq=False)
class ClaimOrigin:
    """The board, the worker and the clock that a batch of claims shares."""

    board: Any
    worker: str
    clock: Callable[[], float]


class ClaimRef(weakref.ref["Claim[Any]"]):
    """
    A weak reference to a claim that keeps the facts of the claim after it has gone.

    Attributes:
        origin: Board, worker and clock of the claim.
        task_id: The task.
        token: The token.
        began: Whether its handler began, so that dropping it counts as a crash.
    """

    __slots__ = ("began", "origin", "task_id", "token")
    began: bool
    origin: ClaimOrigin
    task_id: str
    token: int


class Claim(Struct, Generic[P], eq=False, weakref=True):
    """
    A task that this worker holds until its lease runs out.

    Only boards make claims. A claim ends with exactly one of :meth:`done`, :meth:`retry`,
    :meth:`dead` or :meth:`release`, whose result you pass to ``board.settle``.

    Attributes:
        task: The task.
        token: A number that is unique on the board and only grows; every later write must name it.
        attempt: The number of this attempt, from 1.
        crashes: How many leases of this task have lapsed because a worker died or blocked.
    """

    # A claim starts as HELD, with no flag set. Each flag says what has happened to it:
    #
    #   SETTLING  a settlement is on its way to the board; cleared if the call fails
    #   RECALLED  its worker must stop, and the task goes back uncounted
    #   LOST      a renewal found the token gone, or the lease lapsed without a renewal
    #   REFUSED   the board has refused a settlement, as the token was no longer valid
    #   SETTLED   the board has written the end
    #
    # HELD -> (SETTLING -> HELD)* -> one of SETTLED | REFUSED | LOST | RECALLED. A recalled or lost
    # claim may still be settled: that gives it back, or finds out that another worker has it.
    #
    # INVARIANT. Only SETTLING is ever cleared. RECALLED is not added to LOST, and only RECALLED
    # is added to SETTLED, where it just stops the handler. REFUSED may become SETTLED (an earlier
    # call, whose result is unknown, had written the end), never the reverse.

    task: Task[P]
    token: int
    attempt: int
    crashes: int
    _origin: ClaimOrigin
    _deadline: float
    _state: int = HELD
    _ending: SettlementKind | None = None  # of the settlement that the board answered last
    _operator: Watcher | None = None  # has the claim now, and is told to stop first
    _watchers: tuple[Watcher, ...] = ()  # they hold something for it until it ends
    # Returns how many claims of its stream can still be settled.
    _outstanding: Callable[[], int] | None = None
    _ref: ClaimRef | None = None  # belongs to the lease keeper; outlives the claim

    def __repr__(self) -> str:
        return (
            f"Claim(task={self.task!r}, token={self.token}, attempt={self.attempt},"
            f" crashes={self.crashes})"
        )

    @property
    def worker(self) -> str:
        """The label of the worker that claimed it."""
        return self._origin.worker

    @property
    def lost(self) -> bool:
        """True once a renewal has found the token gone, or the lease has lapsed unrenewed."""
        if self._state & (LOST | ANSWERED):
            return self._state & LOST != 0
        return self._origin.clock() >= self._deadline

    def done(self) -> Settlement:
        """Return the settlement of a task that is finished."""
        return Settlement(self, "done")

    def retry(self, error: BaseException | str, delay: float | timedelta = 0.0) -> Settlement:
        """
        Return the settlement of a failed attempt, which is retried after *delay* seconds.

        A task whose ``max_attempts`` are used up is dead instead.

        Raises:
            ConfigError: If *delay* is negative or not finite, or *error* is neither an exception
                nor a str.
        """
        text, traceback = self._described(error)
        return Settlement(self, "retry", text, seconds("delay", delay), "failed", traceback)

    def dead(self, reason: str, error: BaseException | str = "") -> Settlement:
        """
        Return the settlement of a task that will not be tried again.

        *reason* says why, in up to 200 characters. If *error* is an exception, the dead letter
        keeps its type, its message and the end of its traceback.

        Raises:
            ConfigError: If *reason* is empty, or an argument is of another type.
        """
        if not isinstance(reason, str) or not reason:
            raise ConfigError("reason must be a str that is not empty", reason)
        text, traceback = self._described(error, final=True)
        return Settlement(self, "dead", text, reason=cut(reason, REASON_LIMIT), traceback=traceback)

    def release(self, delay: float | timedelta = 0.0) -> Settlement:
        """
        Return the settlement that gives the task back: it keeps its place, and nothing is counted.

        Raises:
            ConfigError: If *delay*, the seconds until it is ready again, is negative or not finite.
        """
        return Settlement(self, "released", delay=seconds("delay", delay))

    # -- for boards --------------------------------------------------------------------------

    def _renewed(self, deadline: float) -> None:
        """Record that the lease lasts until *deadline* at least."""
        self._deadline = max(self._deadline, deadline)

    def _missed(self) -> bool:
        """Whether the claim counts as lost if a renewal finds its token gone."""
        # A renewal that overtakes the reply of a settlement finds the token gone too.
        return not self._state & (SETTLING | ANSWERED)

    # These take many claims at once: a call for each would cost a few percent of a drain.

    @staticmethod
    def _settling(settlements: Sequence[Settlement]) -> None:
        """Note that the settlements are on their way."""
        for settlement in settlements:
            settlement.claim._state |= SETTLING

    @staticmethod
    def _unsettled(settlements: Sequence[Settlement]) -> None:
        """Note that the call has failed; its effect on the board is unknown."""
        for settlement in settlements:
            settlement.claim._state &= ~SETTLING

    @staticmethod
    def _settled(settlements: Sequence[Settlement], held: Sequence[bool]) -> None:
        """Note the board's answer: for each settlement, whether its token was still valid."""
        for settlement, holds in zip(settlements, held, strict=True):
            claim = settlement.claim
            state = claim._state
            # Of two settlements at once, the one with the valid token counts, in whatever order
            # the replies come.
            if state & ANSWERED and (state & SETTLED or not holds):
                claim._state = state & ~SETTLING
                continue
            claim._state = state & ~(SETTLING | REFUSED) | (SETTLED if holds else REFUSED)
            claim._ending = settlement.kind
            for watcher in claim._watchers:
                watcher.claim_changed(claim, "settled")

    @staticmethod
    def _answers(settlements: Sequence[Settlement]) -> list[bool]:
        """Return for each settlement whether the board has written the end that it names."""
        return [s.claim._ending == s.kind and s.claim._state & SETTLED != 0 for s in settlements]

    def _knows(self, kind: SettlementKind) -> bool:
        """Whether the answer to a settlement of *kind* is known, so that it need not be written."""
        return self._state & SETTLED != 0 or (self._state & REFUSED != 0 and self._ending == kind)

    @property
    def _answered(self) -> bool:
        """Whether the board has answered a settlement."""
        return self._state & ANSWERED != 0

    # -- for operators -----------------------------------------------------------------------

    @property
    def _stopped(self) -> Literal["released", "lost"] | None:
        """The status of its outcome if its handler must not start any more, else None."""
        if self._state & STOPPED:
            return "released" if self._state & RECALLED else "lost"
        return None

    @property
    def _open(self) -> bool:
        """Whether it is neither lost nor answered."""
        return not self._state & (LOST | ANSWERED)

    def _watch(self, watcher: Watcher) -> None:
        """Call *watcher* at every change."""
        self._watchers = (watcher, *self._watchers)

    def _recall(self) -> None:
        """Stop the work on this claim; its task goes back to the board."""
        if not self._state & STOPPED:
            self._state |= RECALLED
            self._tell("recalled")

    def _lose(self) -> bool:
        """Stop the work, as another worker may have the task; False if the claim has ended."""
        if self._state & (LOST | SETTLED):
            return False
        self._state |= LOST
        self._tell("lost")
        return True

    def _abandon(self) -> None:
        """Let the lease lapse, without renewal and without giving it back."""
        self._tell("abandoned")

    def _give_back(self, delay: float = 0.0) -> None:
        """Release it in the background."""
        self._origin.board._intakes.give_back([self], delay)

    def _tell(self, change: Change) -> None:
        operator, self._operator = self._operator, None
        if operator is not None:
            operator.claim_changed(self, change)
        for watcher in self._watchers:
            watcher.claim_changed(self, change)

    def _described(self, error: BaseException | str, *, final: bool = False) -> tuple[str, str]:
        """
        Return what is stored of *error*: type and message, and the traceback if the task may die.

        A retry means death if no attempt remains, and may mean death if the task has a ttl.
        """
        if isinstance(error, str):
            return cut(error, ERROR_LIMIT), ""
        if not isinstance(error, BaseException):
            raise ConfigError("error must be an exception or a str", error)
        task = self.task
        final = final or task.ttl is not None or retry_or_dead(task, self.attempt) == "dead"
        return describe(error), traceback_text(error) if final else ""


current: ContextVar[Claim[Any]] = ContextVar("rxdispatch_claim")
"""The claim whose handler is running; defined here, so that tracing need not import operators."""


class Settlement(Struct, eq=False, gc=False):
    """
    How a claim ends; made by the methods of :class:`Claim`.

    Attributes:
        claim: The claim.
        kind: ``done``, ``retry``, ``dead`` or ``released``, as requested.
        error: The error as ``Type: message``.
        delay: Seconds until the task is ready again.
        reason: Why the task is dead, if it is.
        traceback: The end of the error's traceback; boards keep it for dead tasks only.
    """

    claim: Claim[Any]
    kind: SettlementKind
    error: str = ""
    delay: float = 0.0
    reason: str = ""
    traceback: str = ""

    @property
    def verdict(self) -> SettlementKind:
        """The kind that the board writes: a retry becomes ``dead`` if no attempt remains."""
        if self.kind != "retry":
            return self.kind
        return retry_or_dead(self.claim.task, self.claim.attempt)


class Outcome(Struct, Generic[P, R], eq=False, weakref=True):
    """
    The result of a handler's attempt.

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
        Refuse values that a function between ``execute`` and ``settle`` may have set by mistake.

        Raises:
            ConfigError: If the status is unknown, or *delay*, *reason* or *error* break their rule.
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
        Return the settlement that writes this outcome to its board; None when the claim is lost.

        Raises:
            ConfigError: As :meth:`check`.
        """
        claim = self.claim
        if self.status == "done":
            return Settlement(claim, "done")
        if self.status == "lost":
            return None
        self.check()
        delay = seconds("outcome.delay", self.delay)
        if self.status == "released":
            return Settlement(claim, "released", delay=delay)
        error = "" if self.error is None else self.error
        text, traceback = claim._described(error, final=self.status == "dead")
        reason = cut(self.reason or "failed", REASON_LIMIT)
        return Settlement(claim, self.status, text, delay, reason, traceback)
