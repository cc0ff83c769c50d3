"""A board in memory whose engine records its calls, and can be slow or fail on request."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxdispatch.boards.engine import ClaimReply
from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.boards.memory.engine import MemoryEngine
from rxdispatch.boards.task_codec import NewTask
from rxdispatch.claim import Outcome, Settlement
from rxdispatch.clock import valve_of
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.task import Task
from rxdispatch.valve import Gate

Board = MemoryBoard[Any]
Result = Outcome[Any, Any]


class Call(NamedTuple):
    """A call of the engine: when, which, and for how many tasks."""

    at: float
    name: str
    size: int


class Engine(MemoryEngine):
    """Keeps tasks as boards in memory do, like a server that is slow or sometimes unreachable."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        #: The errors with which the next calls of a name end, before they do anything.
        self.faults: defaultdict[str, list[Exception]] = defaultdict(list)
        #: How many seconds a call takes before its work is done, and how many its reply takes
        #: after it.
        self.before: defaultdict[str, float] = defaultdict(float)
        self.after: defaultdict[str, float] = defaultdict(float)
        self.running = 0
        self.most_running = 0

    def named(self, name: str) -> list[Call]:
        """Return the calls with this name."""
        return [call for call in self.calls if call.name == name]

    def sizes(self, name: str) -> list[int]:
        """Return how many tasks each call with this name was for."""
        return [call.size for call in self.named(name)]

    def times(self, name: str) -> list[float]:
        """Return the times of the calls with this name."""
        return [call.at for call in self.named(name)]

    def away(self, name: str, times: int) -> None:
        """Let the next *times* calls with this name find no server."""
        self.faults[name] += [StoreUnavailableError(name) for _ in range(times)]

    async def submit(self, entries: Sequence[NewTask]) -> list[bool]:
        async with _Visit(self, "submit", len(entries)):
            return await super().submit(entries)

    async def claim(
        self,
        limit: int,
        ids: Sequence[str] | None,
        kinds: Sequence[str] | None,
        worker: str,
        lease: float,
    ) -> ClaimReply:
        async with _Visit(self, "claim", limit):
            return await super().claim(limit, ids, kinds, worker, lease)

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        async with _Visit(self, "renew", len(held)):
            return await super().renew(held, lease)

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        async with _Visit(self, "settle", len(settlements)):
            return await super().settle(settlements)


class _Visit:
    """The context of a call, with its delays and errors; it counts concurrent calls too."""

    def __init__(self, engine: Engine, name: str, size: int) -> None:
        self.engine, self.name, self.size = engine, name, size

    async def __aenter__(self) -> None:
        engine, name = self.engine, self.name
        engine.calls.append(Call(asyncio.get_running_loop().time(), name, self.size))
        engine.running += 1
        engine.most_running = max(engine.most_running, engine.running)
        try:
            if engine.before[name]:
                await asyncio.sleep(engine.before[name])
            if engine.faults[name]:
                raise engine.faults[name].pop(0)
        except BaseException:
            engine.running -= 1
            raise

    async def __aexit__(self, *_: object) -> None:
        try:
            if self.engine.after[self.name]:
                await asyncio.sleep(self.engine.after[self.name])
        finally:
            self.engine.running -= 1


def place(name: str = "b") -> tuple[Board, Engine]:
    """Return a new board and its engine."""
    engine = Engine()
    return MemoryBoard(name, engine=engine), engine


def tasks(count: int, **options: Any) -> list[Task[Any]]:
    """Return *count* tasks; their ids are "0", "1" and so on."""
    return [Task(n, id=str(n), **options) for n in range(count)]


async def filled(count: int, **options: Any) -> tuple[Board, Engine]:
    """Return a new board with *count* tasks, and its engine."""
    board, engine = place()
    await board.submit(tasks(count, **options))
    engine.calls.clear()
    return board, engine


async def marks(board: Board) -> tuple[int, int, int, int, int]:
    """Return how many tasks are scheduled, ready, claimed, done and dead."""
    counts = await board.counts()
    return counts.scheduled, counts.ready, counts.claimed, counts.done, counts.dead


def ids(items: Iterable[Any]) -> list[str]:
    """Return the ids of claims or outcomes."""
    claims: list[Any] = [getattr(item, "claim", item) for item in items]
    return [str(claim.task.id) for claim in claims if hasattr(claim, "task")]


async def turns(count: int = 5) -> None:
    """Let the loop turn a few times without letting time pass."""
    for _ in range(count):
        await asyncio.sleep(0)


class Hand:
    """A source that the test pushes, and which remembers the valve of its subscription."""

    def __init__(self) -> None:
        self.subject: Subject[Any] = Subject()
        self.disposed = 0
        self._gate: Gate | None = None

    @property
    def gate(self) -> Gate:
        """The gate of the operator that subscribed."""
        assert self._gate is not None
        return self._gate

    def stream(self) -> Observable[Any]:
        """Return the source as a stream."""

        def subscribe(
            observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            valve = valve_of(scheduler)
            self._gate = valve if isinstance(valve, Gate) else None
            inner = self.subject.subscribe(observer)

            def dispose() -> None:
                self.disposed += 1
                inner.dispose()

            return Disposable(dispose)

        return Observable(subscribe)

    def push(self, *items: Any) -> None:
        """Emit *items*."""
        for item in items:
            self.subject.on_next(item)

    def complete(self) -> None:
        """Complete."""
        self.subject.on_completed()

    def fail(self, error: Exception) -> None:
        """End the stream with *error*."""
        self.subject.on_error(error)
