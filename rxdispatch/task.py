"""Tasks and what becomes of them: the values that flow through boards and operators."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Generic, Literal, Protocol, TypeVar, get_args

import attrs
from msgspec import Struct
from uuid_utils import uuid7

from rxdispatch.checks import check_id_size, integer, strings, utf8_size
from rxdispatch.errors import ConfigError
from rxdispatch.failure import ERROR_LIMIT, cut, describe, traceback_text
from rxdispatch.seconds import seconds

if TYPE_CHECKING:
    pass

__all__ = [
    "Claim",
    "ClaimBatch",
    "Counts",
    "DeadLetter",
    "EventKind",
    "Outcome",
    "OutcomeStatus",
    "Settlement",
    "SettlementKind",
    "Status",
    "SubmitResult",
    "Task",
    "TaskEvent",
    "TaskState",
    "current",
]

P = TypeVar("P")
R = TypeVar("R")

PRIORITY_LIMIT: Final = 4096
KIND_LIMIT: Final = 200
HEADERS_LIMIT: Final = 64 * 1024
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})

SettlementKind = Literal["done", "retry", "dead", "released"]
OutcomeStatus = Literal["done", "retry", "dead", "released", "lost"]
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
]


class Status(StrEnum):
    """The mark of a task."""

    SCHEDULED = "SCHEDULED"
    READY = "READY"
    CLAIMED = "CLAIMED"
    DONE = "DONE"
    DEAD = "DEAD"


@attrs.define(slots=True, weakref_slot=False, eq=False, init=False)
class _Fields(Generic[P]):
    """
    The fields of a task that is not frozen yet.

    A frozen class sets its fields the slow way. A new task has these filled, and is then turned
    into a Task.
    """

    payload: P
    id: str = attrs.field(kw_only=True)
    kind: str = attrs.field(kw_only=True, default="default")
    priority: int = attrs.field(kw_only=True, default=0)
    delay: float = attrs.field(kw_only=True, default=0.0)
    ttl: float | None = attrs.field(kw_only=True, default=None)
    timeout: float | None = attrs.field(kw_only=True, default=None)
    max_attempts: int = attrs.field(kw_only=True, default=5)
    headers: Mapping[str, str] = attrs.field(kw_only=True, default=NO_HEADERS)


_NAMES: Final = tuple(field.name for field in attrs.fields(_Fields))

# Told by identity, so that every str can be refused or taken as an id.
_NEW: Final = b"a new UUID".decode()


@attrs.frozen(  # pyright: ignore[reportGeneralTypeIssues]
    slots=True, weakref_slot=False, hash=False, init=False
)
class Task(_Fields[P]):
    """
    A piece of work.

    Args:
        payload: What the handler gets: anything msgspec can write as MessagePack, at most
            1 MiB, without NaN or infinity.
        id: Unique on its board, at most 1,024 bytes in UTF-8; a UUID version 7 by default.
            Stored literally.
        kind: A label for the handler, at most 200 characters.
        priority: Higher first, an int from -4096 to 4096.
        delay: Seconds to wait before it is ready.
        ttl: Seconds from submission after which it is dead if no attempt is running.
        timeout: Seconds an attempt may take; beats the operator's own.
        max_attempts: Tries in total before it is dead.
        headers: Short strings that travel along, such as a trace context; names and values
            together at most 64 KiB in UTF-8.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> Task({"path": "a.py"}, id="a.py", priority=5).priority
        5
    """

    def __init__(
        self,
        payload: P,
        *,
        id: str = _NEW,  # noqa: A002 - what it is called
        kind: str = "default",
        priority: int = 0,
        delay: float = 0.0,
        ttl: float | None = None,
        timeout: float | None = None,
        max_attempts: int = 5,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        # Plain comparisons first: validators of attrs would cost more than the rest of a submit.
        if id is _NEW:
            id = str(uuid7())  # noqa: A001
        elif id.__class__ is not str or not id:
            raise ConfigError("id must be a str that is not empty", id)
        elif len(id) > 256:
            check_id_size(id)
        if kind != "default":
            _check_kind(kind)
        if priority.__class__ is not int or not -4096 <= priority <= 4096:
            raise ConfigError(
                f"priority must be an int from -{PRIORITY_LIMIT} to {PRIORITY_LIMIT}", priority
            )
        if delay.__class__ is not float or delay != 0.0:
            delay = seconds("delay", delay)
        if ttl is not None:
            ttl = seconds("ttl", ttl, zero=False)
        if timeout is not None:
            timeout = seconds("timeout", timeout, zero=False)
        integer("max_attempts", max_attempts)
        if headers is not NO_HEADERS:
            headers = _checked_headers(headers)
        if self.__class__ is not Task:
            # What a subclass adds has no room in _Fields.
            given = (payload, id, kind, priority, delay, ttl, timeout, max_attempts, headers)
            for name, value in zip(_NAMES, given, strict=True):
                object.__setattr__(self, name, value)
            return
        made: Any = self
        object.__setattr__(made, "__class__", _Fields)
        made.payload = payload
        made.id = id
        made.kind = kind
        made.priority = priority
        made.delay = delay
        made.ttl = ttl
        made.timeout = timeout
        made.max_attempts = max_attempts
        made.headers = headers
        made.__class__ = Task

    @classmethod
    def trusted(cls, payload: Any, task_id: str) -> Task[Any]:
        """Return a task with default settings whose arguments are known to be good."""
        # Field by field: a third of what the initializer would take.
        plain: Any = _Fields
        made: Any = object.__new__(plain)
        made.payload = payload
        made.id = task_id
        made.kind = "default"
        made.priority = 0
        made.delay = 0.0
        made.ttl = None
        made.timeout = None
        made.max_attempts = 5
        made.headers = NO_HEADERS
        made.__class__ = cls
        task: Task[Any] = made
        return task

    def __hash__(self) -> int:
        return hash(self.id)

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled, and tasks travel to process pools.
        fields: dict[str, Any] = {name: getattr(self, name) for name in _NAMES}
        fields["headers"] = dict(self.headers)
        return _restore, (fields,)


def _check_kind(kind: Any) -> None:
    if kind.__class__ is not str:
        raise ConfigError("kind must be a str", kind)
    if len(kind) > KIND_LIMIT:
        raise ConfigError(f"kind must be at most {KIND_LIMIT} characters", len(kind))


def _checked_headers(given: Any) -> Mapping[str, str]:
    headers = strings("headers", given)
    size = sum(utf8_size(name) + utf8_size(value) for name, value in headers.items())
    if size > HEADERS_LIMIT:
        raise ConfigError(f"headers must be at most {HEADERS_LIMIT} bytes in UTF-8", size)
    return headers


def _restore(fields: dict[str, Any]) -> Task[Any]:
    fields["headers"] = fields["headers"] or NO_HEADERS
    return Task(**fields)


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


@attrs.frozen(slots=True)
class SubmitResult:
    """Which ids a submit added, and which were on the board already, in the order given."""

    accepted: tuple[str, ...]
    duplicates: tuple[str, ...]


@attrs.frozen(slots=True)
class ClaimBatch:
    """
    The answer to one claim.

    Attributes:
        claims: What was claimed.
        due_in: Seconds until the next scheduled task is ready; None when there is none.
    """

    claims: list[Claim[Any]]
    due_in: float | None


@attrs.frozen(slots=True)
class Counts:
    """How many tasks have each mark; ``done`` is a running total."""

    scheduled: int
    ready: int
    claimed: int
    done: int
    dead: int


@attrs.frozen(slots=True)
class TaskState:
    """
    What a board knows of one task.

    Attributes:
        status: Its mark.
        attempts: Failed tries so far, with the running one where it is claimed.
        crashes: How often its worker died or let the lease run out.
        worker: Who holds it, when claimed.
        created_at: When it was submitted, in seconds since 1970 on the submitter's clock; 0 for a
            done task that is remembered, and where what is stored cannot be read.
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
        reason: ``failed``, ``crashed``, ``expired``, ``cancelled``, ``undecodable`` or the
            handler's own.
        error: The last error as ``Type: message``, or an empty string.
        attempts: Failed tries.
        crashes: Worker deaths.
        at: When it died, in seconds since 1970 on the server's clock.
        traceback: The end of the last error's traceback, with its causes and the parts of
            exception groups, but no local variables: at most 8 KiB, in shared memory 2 KiB. Empty
            where the task did not die of an exception.
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
    Something that happened to a task, in whichever process.

    Attributes:
        kind: What happened.
        task_id: To which task.
        worker: By whom, where a claim was involved.
        token: By which token, where a claim was involved.
        attempt: At which try, where a claim was involved.
        at: When, in seconds since 1970 on the server's clock.
        reason: Why it died, for ``dead``.
    """

    kind: EventKind
    task_id: str
    worker: str | None
    token: int | None
    attempt: int | None
    at: float
    reason: str | None = None
