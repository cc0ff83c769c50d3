"""What a board needs of the place where its tasks are kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, Protocol

import msgspec
from reactivex import Observable

from rxdispatch.boards.codec import NewTask
from rxdispatch.checks import integer
from rxdispatch.claim import Settlement
from rxdispatch.errors import ConfigError
from rxdispatch.results import Counts, TaskEvent
from rxdispatch.seconds import seconds
from rxdispatch.task import Status

__all__ = [
    "CHUNK",
    "DEFAULTS",
    "ClaimReply",
    "ClaimedTask",
    "DeadRow",
    "Engine",
    "Options",
    "Signal",
    "StoredState",
    "Unfinished",
]

CHUNK = 1000
"""How many tasks one atomic step takes at most."""

DEFAULTS = (3, 0.0, 100_000)
"""``max_crashes``, ``remember`` and ``dead_limit`` where no handle gives them."""

Signal = Literal["ready", "joined", "reconnected"]


class Options(NamedTuple):
    """The options of a board; None where a handle gives none."""

    max_crashes: int | None = None
    remember: float | None = None
    dead_limit: int | None = None

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
        """Return these options with what *given* adds; a different value is a ConfigError."""
        both: list[Any] = []
        for name, mine, theirs in zip(self._fields, self, given, strict=True):
            if mine is not None and theirs is not None and mine != theirs:
                raise ConfigError(f"{name} must be {mine}, as stored with the board", theirs)
            both.append(theirs if mine is None else mine)
        return Options(*both)

    def filled(self) -> tuple[int, float, int]:
        """Return the options in force, with defaults where none was given."""
        return (
            DEFAULTS[0] if self.max_crashes is None else self.max_crashes,
            DEFAULTS[1] if self.remember is None else self.remember,
            DEFAULTS[2] if self.dead_limit is None else self.dead_limit,
        )


class ClaimedTask(msgspec.Struct, gc=False):
    """A task that was claimed."""

    id: str
    token: int
    record: bytes
    attempts: int = 0
    crashes: int = 0


class ClaimReply(NamedTuple):
    """What one claim brought, and the seconds until something more is due."""

    found: list[ClaimedTask]
    due_in: float | None


class StoredState(NamedTuple):
    """What is kept of one task; ``record`` is empty for a remembered one."""

    status: Status
    record: bytes
    attempts: int
    crashes: int
    worker: str | None
    error: str


class DeadRow(NamedTuple):
    """A task that died."""

    id: str
    record: bytes
    reason: str
    error: str
    attempts: int
    crashes: int
    at: float
    traceback: str = ""


class Unfinished(NamedTuple):
    """What is unfinished, after a sweep."""

    scheduled: int
    ready: int
    claimed: int
    due_in: float | None


class Engine(Protocol):
    """
    The atomic steps of a board; each takes at most :data:`CHUNK` tasks.

    Every step either happens whole or not at all, and may be repeated by the engine itself
    when its answer is lost. Times are seconds.
    """

    @property
    def instant(self) -> bool:
        """Whether ``claim`` is known never to suspend, so that nobody can cancel it half-way."""
        ...

    @property
    def signals(self) -> Observable[Signal]:
        """Hot: there may be something ready, or nothing unfinished, or news may be missing."""
        ...

    @property
    def events(self) -> Observable[TaskEvent]:
        """Hot: what happens to tasks, in all processes."""
        ...

    async def submit(self, entries: Sequence[NewTask]) -> list[bool]:
        """Add tasks; False where the id is known."""
        ...

    async def claim(
        self, limit: int, ids: Sequence[str] | None, worker: str, lease: float
    ) -> ClaimReply:
        """Sweep, then claim up to *limit* tasks."""
        ...

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        """Extend the leases of (id, token) pairs; False where the token no longer holds."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; False where the token no longer holds."""
        ...

    async def cancel(self, ids: Sequence[str]) -> list[bool]:
        """Bury tasks as cancelled; False where there is nothing to cancel."""
        ...

    async def redrive(self, ids: Sequence[str] | None, until: str) -> tuple[int, str]:
        """Make dead tasks ready; how many, and what to pass as *until* to go on."""
        ...

    async def pause(self, paused: bool) -> None:
        """Hold back, or no longer hold back, all claims."""
        ...

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        ...

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place; 0 where there is none."""
        ...

    async def get(self, task_id: str) -> StoredState | None:
        """What is known of one task."""
        ...

    async def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records of tasks that are kept, whatever their state; perhaps of the first only."""
        ...

    async def dead(self, after: str) -> tuple[list[DeadRow], str]:
        """A page of dead tasks, and what to pass as *after* to go on; the same at the end."""
        ...

    async def tick(self) -> Unfinished:
        """Sweep, and count what is unfinished."""
        ...
