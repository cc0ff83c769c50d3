"""Where the contract tests keep their boards: in memory, in shared memory, on Valkey or Redis."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Literal

import attrs

from rxdispatch.boards.base import Board
from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.boards.shm.storage.mapping import path_of
from rxdispatch.config import Settings
from rxdispatch.hub import Hub, connect
from rxdispatch.results import Counts
from rxdispatch.store.embedded.server import EmbeddedServer
from rxdispatch.testing import VirtualTimeLoop
from tests.servers import Kind, system_redis

__all__ = [
    "Bench",
    "Place",
    "PlaceKind",
    "counts",
    "memory_place",
    "order",
    "server_place",
    "shared_place",
    "until",
]

PlaceKind = Literal["memory", "shm", "valkey", "redis"]

_names = itertools.count()


@attrs.define
class SharedHub:
    """Creates a board in shared memory, or attaches to it if it exists."""

    boards: list[SharedMemoryBoard[Any]] = attrs.field(factory=list[SharedMemoryBoard[Any]])

    def board(self, name: str, **options: Any) -> SharedMemoryBoard[Any]:
        made = isinstance(name, str) and 0 < len(name) <= 200 and "\ud800" not in name
        if made and path_of(name).exists():
            board = SharedMemoryBoard[Any].attach(name, **options)
        else:
            board = SharedMemoryBoard[Any].create(name, capacity=400_000, **options)
        self.boards.append(board)
        return board

    def close(self) -> None:
        for board in self.boards:
            board.close()
            board.unlink()


@attrs.frozen
class Bench:
    """
    One board, with two hubs that know it.

    In memory both are the same hub, as two hubs share nothing.
    """

    kind: PlaceKind
    hub: Any
    other_hub: Any
    name: str

    def board(self, **options: Any) -> Board[Any]:
        """Return a handle on the board."""
        board: Board[Any] = self.hub.board(self.name, **options)
        return board

    def another(self, name: str) -> Board[Any]:
        """Return a handle on another board."""
        board: Board[Any] = self.hub.board(name)
        return board

    def elsewhere(self, **options: Any) -> Board[Any]:
        """Return a handle that the server takes for one of another process."""
        board: Board[Any] = self.other_hub.board(self.name, **options)
        return board

    async def later(self, seconds: int) -> None:
        """
        Let time pass on the board.

        A board on a server stores how far its clock is ahead of TIME, in case TIME is set back.
        Increasing this offset saves the tests from waiting.
        """
        if self.kind == "memory":
            await asyncio.sleep(seconds)
        elif self.kind == "shm":
            with SharedMemoryBoard[Any].attach(self.name) as board:
                board._shared.skew(seconds)
        else:
            skew = seconds * 1_000_000
            await self.hub.client.call("later", "HINCRBY", self.key("meta"), "skew", skew)

    def key(self, name: str) -> bytes:
        """Return the name of one of the board's keys, on a server."""
        return b"{rxd:" + self.name.encode() + b"}:" + name.encode()


@attrs.frozen
class Place:
    """A kind of board and, unless it is in memory, the server that runs."""

    kind: PlaceKind
    url: str

    @property
    def loop_factory(self) -> Callable[[], asyncio.AbstractEventLoop] | None:
        """Boards in memory run on virtual time; the times of a server are real."""
        return VirtualTimeLoop if self.kind == "memory" else None

    @asynccontextmanager
    async def bench(self, settings: Settings | None = None) -> AsyncGenerator[Bench]:
        """Open the hubs, and give the bench a board name that is not in use."""
        if self.kind == "shm":
            shared = SharedHub()
            try:
                yield Bench(self.kind, shared, shared, f"board-{os.getpid()}-{next(_names)}")
                for board in shared.boards:
                    await board._intakes.finished()
            finally:
                shared.close()
            return
        async with AsyncExitStack() as stack:
            hub: Hub = await stack.enter_async_context(connect(self.url, settings=settings))
            other = hub
            if self.kind != "memory":
                other = await stack.enter_async_context(connect(self.url, settings=settings))
            yield Bench(self.kind, hub, other, f"board-{next(_names)}")


def shared_place() -> Place:
    """Boards in shared memory, with several handles."""
    return Place("shm", "")


def memory_place() -> Place:
    """Boards in this process."""
    return Place("memory", "memory://")


@contextmanager
def server_place(kind: Kind) -> Generator[Place]:
    """Boards on a server that runs during the block; skip the test if there is no such server."""
    if kind == "redis":
        with system_redis() as url:
            yield Place("redis", url)
    else:
        server = asyncio.run(EmbeddedServer.start())
        try:
            yield Place("valkey", f"unix://{server.socket_path}")
        finally:
            asyncio.run(server.stop())


async def order(board: Board[Any]) -> list[str]:
    """Return the ids of the ready tasks, in the order of claiming, and change nothing."""
    claims = await board.claim(10_000)
    await board.settle([claim.release() for claim in claims])
    return [claim.task.id for claim in claims]


async def counts(board: Board[Any]) -> tuple[int, int, int, int, int]:
    """Return how many are scheduled, ready, claimed, done and dead."""
    found: Counts = await board.counts()
    return found.scheduled, found.ready, found.claimed, found.done, found.dead


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
