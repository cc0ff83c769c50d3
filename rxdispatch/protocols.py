"""Protocols of boards, feeds, valves and limits, for the layers below them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Any, Protocol, runtime_checkable

from reactivex import Observable
from reactivex.abc import DisposableBase

from rxdispatch.claim import Claim, Settlement
from rxdispatch.intakes import Intakes
from rxdispatch.node import NodeChange, Slot
from rxdispatch.results import Counts, DeadLetter, SubmitResult, TaskEvent, TaskState
from rxdispatch.task import Task

__all__ = ["BoardLike", "FeedLike", "Limit", "Valve"]


@runtime_checkable
class Valve(Protocol):
    """The demand of an operator that holds a limited number of items."""

    def room(self) -> int:
        """How many more items it can take now; 0 while the valve below has no room."""
        ...

    def listen(self, on_room: Callable[[], None]) -> DisposableBase:
        """Call *on_room* whenever there may be room again, until the result is disposed."""
        ...


@runtime_checkable
class Limit(Protocol):
    """A limit on how many items are at work at once; it may change while the stream runs."""

    @property
    def limit(self) -> int:
        """How many items may be at work now, at least 1; it is read again when an item ends."""
        ...

    @property
    def maximum(self) -> int:
        """The largest value that ``limit`` ever has."""
        ...

    def ended(self, seconds: float, *, in_flight: int, dropped: bool) -> None:
        """
        Learn from an item that has ended after *seconds* at work.

        *in_flight* items were at work then, this one included. *dropped* says whether the item ran
        out of time. Items that fail in other ways are not reported.
        """
        ...


class BoardLike(Protocol):
    """A shared list of tasks, which workers claim by changing their marks."""

    @property
    def name(self) -> str:
        """The board's name."""
        ...

    @property
    def _intakes(self) -> Intakes:
        """The object through which operators claim, give back and settle."""
        ...

    @property
    def events(self) -> Observable[TaskEvent]:
        """A hot stream of what happens to tasks in all processes; each event comes at most once."""
        ...

    async def submit(self, tasks: Task[Any] | Iterable[Task[Any]]) -> SubmitResult:
        """Add tasks."""
        ...

    async def claim(
        self,
        limit: int,
        *,
        ids: Sequence[str] | None = None,
        kinds: Iterable[str] | None = None,
        worker: str | None = None,
        lease: float = 30.0,
    ) -> list[Claim[Any]]:
        """Claim up to *limit* tasks."""
        ...

    async def renew(self, claims: Sequence[Claim[Any]], lease: float) -> list[Claim[Any]]:
        """Extend leases; returns the claims that were lost."""
        ...

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; False where the token no longer holds."""
        ...

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        ...

    async def get(self, task_id: str) -> TaskState | None:
        """The state of one task."""
        ...

    async def cancel(self, ids: str | Iterable[str]) -> list[bool]:
        """End tasks as dead, with reason ``cancelled``."""
        ...

    async def pause(self, *, kind: str | None = None) -> None:
        """Stop all workers from claiming, or from claiming one kind, until :meth:`resume`."""
        ...

    async def resume(self, *, kind: str | None = None) -> None:
        """Let workers claim again."""
        ...

    async def join(self, *, kinds: Iterable[str] | None = None) -> None:
        """Wait until nothing is scheduled, ready or claimed."""
        ...

    def dead_letters(self) -> AsyncIterator[DeadLetter[Any]]:
        """The dead tasks, oldest first."""
        ...

    async def redrive(self, ids: str | Iterable[str] | None = None) -> int:
        """Make dead tasks ready again; returns how many."""
        ...


class FeedLike(Protocol):
    """A fleet of nodes that work can be placed on."""

    @property
    def changes(self) -> Observable[NodeChange]:
        """A hot stream of the changes of nodes."""
        ...

    # Type checkers read this as "any arguments", so a feed may declare its criteria more strictly.
    def criteria(self, *args: Any, **criteria: Any) -> object:
        """Raise ConfigError unless these are criteria that a node can meet."""
        ...

    async def reserve_many(self, count: int, *args: Any, **options: Any) -> list[Slot]:
        """Reserve up to *count* slots, of *lease* seconds, on nodes that meet the criteria."""
        ...

    def release_later(self, slots: Iterable[Slot]) -> None:
        """Give slots back in the background."""
        ...
