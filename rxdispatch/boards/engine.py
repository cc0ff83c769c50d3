"""``Engine``: the protocol of what keeps a board's tasks, and the types of its replies."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from reactivex import Observable
from reactivex.abc import DisposableBase

from rxdispatch.boards.task_codec import NewTask, TaskCodec, created_of
from rxdispatch.checks import integer
from rxdispatch.claim import Settlement
from rxdispatch.errors import CodecError, ConfigError
from rxdispatch.results import Counts, DeadLetter, KindState, TaskEvent, TaskState
from rxdispatch.seconds import seconds
from rxdispatch.task import Status, Task

__all__ = [
    "CHUNK",
    "DEFAULTS",
    "ClaimReply",
    "ClaimedTask",
    "DeadRow",
    "Delivery",
    "Engine",
    "Inbox",
    "InboxListener",
    "Options",
    "Signal",
    "StoredState",
    "Unfinished",
]

CHUNK = 1000
"""The most tasks that one atomic step takes."""

DEFAULTS = (3, 0.0, 100_000)
"""``max_crashes``, ``remember`` and ``dead_limit`` of a board if no handle gives them."""

Signal = Literal["ready", "joined", "reconnected"]


class Options(NamedTuple):
    """The options of a board; None for an option that a handle does not give."""

    max_crashes: int | None = None
    remember: float | None = None
    dead_limit: int | None = None

    @classmethod
    def of(
        cls, max_crashes: int | None, remember: float | timedelta | None, dead_limit: int | None
    ) -> Options:
        """Return checked options; *remember* may be a timedelta here."""
        span = None if remember is None else seconds("remember", remember)
        return cls(max_crashes, span, dead_limit).checked()

    def checked(self) -> Options:
        """Return self, or raise ConfigError."""
        for name, least in (("max_crashes", 0), ("dead_limit", 1)):
            value: Any = getattr(self, name)
            if value is not None:
                integer(name, value, least)
        if self.remember is not None:
            seconds("remember", self.remember)
        return self

    def merged(self, given: Options) -> Options:
        """Return these options with those of *given* added; raise ConfigError where they differ."""
        both: list[Any] = []
        for name, mine, theirs in zip(self._fields, self, given, strict=True):
            if mine is not None and theirs is not None and mine != theirs:
                raise ConfigError(f"{name} must be {mine}, as stored with the board", theirs)
            both.append(theirs if mine is None else mine)
        return Options(*both)

    def filled(self) -> tuple[int, float, int]:
        """Return the options, with the default where an option is None."""
        return (
            DEFAULTS[0] if self.max_crashes is None else self.max_crashes,
            DEFAULTS[1] if self.remember is None else self.remember,
            DEFAULTS[2] if self.dead_limit is None else self.dead_limit,
        )


class ClaimedTask(msgspec.Struct, gc=False):
    """A task that an engine has just claimed; the counts are from before this attempt."""

    id: str
    token: int
    record: bytes
    attempts: int = 0
    crashes: int = 0


class ClaimReply(NamedTuple):
    """
    The reply to one claim.

    Attributes:
        found: The claimed tasks.
        due_in: Seconds until another task is due; None if none is, or others come for it.
        handed: Tasks that were handed over before, and that the worker had not read.
        parked: How many workers are parked, for which it polls less often.
        read: Up to which delivery the worker has now read everything.
    """

    found: list[ClaimedTask]
    due_in: float | None
    handed: Sequence[ClaimedTask] = ()
    parked: int = 0
    read: int = 0


class Delivery(NamedTuple):
    """
    Tasks that the board hands to a parked worker.

    Attributes:
        found: The tasks, claimed for this worker.
        handed_at: When, on the clock of leases; minus infinity if that is not known.
    """

    found: list[ClaimedTask]
    handed_at: float


class InboxListener(Protocol):
    """What an inbox calls."""

    def woken(self) -> None:
        """There may be something to claim."""
        ...

    def due(self, seconds: float) -> None:
        """A task is due in *seconds*, earlier than was known."""
        ...

    def delivered(self, delivery: Delivery) -> None:
        """Tasks were handed over."""
        ...

    def cancelled(self, tokens: Sequence[int]) -> None:
        """The claims with these *tokens* were cancelled; any, if there are none."""
        ...


class Inbox(Protocol):
    """Where one worker waits for tasks."""

    def listen(self, listener: InboxListener) -> DisposableBase:
        """Call *listener* until the returned disposable is disposed."""
        ...

    @property
    def room(self) -> int | None:
        """For how many more tasks the worker is parked; None if it has no inbox on the board."""
        ...

    @property
    def read(self) -> int:
        """The number up to which the worker has read every delivery."""
        ...

    async def claim(
        self, limit: int, ids: Sequence[str] | None, park: int, read: int
    ) -> ClaimReply:
        """
        Sweep, and claim up to *limit* tasks, of *ids* if given.

        If there are fewer, wait for at most *park* more. *read* is what :attr:`read` was when
        *limit* was counted.
        """
        ...

    async def confirm(
        self, held: Sequence[tuple[str, int]], lease: float, on_written: Callable[[], None]
    ) -> list[bool]:
        """Renew (id, token) pairs; call *on_written* as soon as the request is on its way."""
        ...

    async def leave(self) -> None:
        """Wait no more: what was handed over and not read goes back."""
        ...


class StoredState(NamedTuple):
    """The stored state of one task; ``record`` is empty for a done task that is remembered."""

    status: Status
    record: bytes
    attempts: int
    crashes: int
    worker: str | None
    error: str

    def task_state(self, task_id: str) -> TaskState:
        """Return the state as users see it; ``attempts`` includes a running one."""
        created = created_of(self.record) if self.record else 0.0
        attempts = self.attempts + (self.status is Status.CLAIMED)
        error = self.error or None
        return TaskState(task_id, self.status, attempts, self.crashes, self.worker, created, error)


class DeadRow(NamedTuple):
    """
    A dead task as it is stored.

    ``at`` is the time of death in seconds since 1970. ``kind`` is known even if the record is
    unreadable.
    """

    id: str
    record: bytes
    reason: str
    error: str
    attempts: int
    crashes: int
    at: float
    traceback: str
    kind: str

    def letter(self, codec: TaskCodec[Any]) -> DeadLetter[Any]:
        """Return the dead letter; if the record is unreadable, its bytes are the payload."""
        try:
            task = codec.decode(self.id, self.record)
        except CodecError:
            task = Task.trusted(self.record, self.id, self.kind)
        return DeadLetter(task, *self[2:-1])


class Unfinished(NamedTuple):
    """How many tasks are unfinished after a sweep."""

    scheduled: int
    ready: int
    claimed: int
    due_in: float | None


class Engine(Protocol):
    """
    The atomic steps of a board; each takes at most :data:`CHUNK` tasks.

    A step happens entirely or not at all. An engine may repeat a step whose answer was lost. Times
    are in seconds.
    """

    @property
    def instant(self) -> bool:
        """Whether ``claim`` never suspends, so that it cannot be cancelled half-way."""
        ...

    @property
    def signals(self) -> Observable[Signal]:
        """Hot: tasks may be ready, none may be unfinished, or messages may have been missed."""
        ...

    @property
    def events(self) -> Observable[TaskEvent]:
        """Hot: what happens to tasks, in all processes."""
        ...

    @property
    def undelivered(self) -> int:
        """How many tasks this handle has seen to lapse before their workers confirmed them."""
        ...

    def inbox(self, kinds: Sequence[str] | None, worker: str, lease: float) -> Inbox:
        """Return a new inbox of *worker*, which claims tasks of *kinds*, or of all."""
        ...

    async def submit(self, entries: Sequence[NewTask]) -> list[bool]:
        """Add tasks; returns False where the id is known."""
        ...

    async def claim(
        self,
        limit: int,
        ids: Sequence[str] | None,
        kinds: Sequence[str] | None,
        worker: str,
        lease: float,
    ) -> ClaimReply:
        """
        Sweep, then claim up to *limit* tasks, the best first.

        Of *ids* if given, else of *kinds* if given, else all; never both. Tasks of a paused kind
        are not claimed.
        """
        ...

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        """Extend the leases of (id, token) pairs; returns False where the token does not hold."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; returns False where the token no longer holds."""
        ...

    async def cancel(self, ids: Sequence[str]) -> list[bool]:
        """Make tasks dead as cancelled; returns False where there is nothing to cancel."""
        ...

    async def redrive(self, ids: Sequence[str] | None, until: str) -> tuple[int, str]:
        """
        Make dead tasks ready; returns how many, and *until* for the next call.

        Where *ids* is None, less than :data:`CHUNK` means that none is left.
        """
        ...

    async def pause(self, paused: bool, kind: str | None) -> None:
        """Pause or resume all claims; or those of a kind, apart from the pause of all."""
        ...

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        ...

    async def kinds(self) -> dict[str, KindState]:
        """The kinds that have unfinished tasks."""
        ...

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place; 0 if there is none."""
        ...

    async def get(self, task_id: str) -> StoredState | None:
        """The stored state of one task; None if its id is not known."""
        ...

    async def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records of tasks in any state; the reply may have only the first ones."""
        ...

    async def dead(self, after: str) -> tuple[list[DeadRow], str]:
        """A page of dead tasks, and *after* for the next page, unchanged if there is none."""
        ...

    async def tick(self, kinds: Sequence[str] | None) -> Unfinished:
        """Sweep, and count what is unfinished."""
        ...
