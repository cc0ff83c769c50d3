"""Where the contract tests keep their boards: in memory, on Valkey, on Redis."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from typing import Any, Literal

import attrs

from rxdispatch.boards.base import BoardBase
from rxdispatch.config import Settings
from rxdispatch.hub import Hub, connect
from rxdispatch.store.embedded import EmbeddedServer
from rxdispatch.task import Counts
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
    "until",
]

PlaceKind = Literal["memory", "valkey", "redis"]

_names = itertools.count()


@attrs.frozen
class Bench:
    """
    One board, with two hubs that know it.

    In memory both hubs are one, as nothing is shared between two.
    """

    kind: PlaceKind
    hub: Hub
    other_hub: Hub
    name: str

    def board(self, **options: Any) -> BoardBase[Any]:
        """Return a handle on the board."""
        return self.hub.board(self.name, **options)

    def another(self, name: str) -> BoardBase[Any]:
        """Return a handle on another board."""
        return self.hub.board(name)

    def elsewhere(self, **options: Any) -> BoardBase[Any]:
        """Return a handle of another process, as far as the server can tell."""
        return self.other_hub.board(self.name, **options)

    async def later(self, seconds: int) -> None:
        """
        Let time pass on the board.

        A server's board keeps by how much its clock is ahead of TIME, for the case that TIME
        is set back; moving that on saves the tests from waiting.
        """
        if self.kind == "memory":
            await asyncio.sleep(seconds)
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
        """Open the hubs and name a board that nobody has used."""
        async with AsyncExitStack() as stack:
            hub = await stack.enter_async_context(connect(self.url, settings=settings))
            other = hub
            if self.kind != "memory":
                other = await stack.enter_async_context(connect(self.url, settings=settings))
            yield Bench(self.kind, hub, other, f"board-{next(_names)}")


def memory_place() -> Place:
    """Boards in this process."""
    return Place("memory", "memory://")


@contextmanager
def server_place(kind: Kind) -> Generator[Place]:
    """Boards on a server that runs meanwhile; skips the test where there is none."""
    if kind == "redis":
        with system_redis() as url:
            yield Place("redis", url)
    else:
        server = asyncio.run(EmbeddedServer.start())
        try:
            yield Place("valkey", f"unix://{server.socket_path}")
        finally:
            asyncio.run(server.stop())


async def order(board: BoardBase[Any]) -> list[str]:
    """Return the ids of what is ready, best first, and leave it as it was."""
    claims = await board.claim(10_000)
    await board.settle([claim.release() for claim in claims])
    return [claim.task.id for claim in claims]


async def counts(board: BoardBase[Any]) -> tuple[int, int, int, int, int]:
    """Return how many are scheduled, ready, claimed, done and dead."""
    found: Counts = await board.counts()
    return found.scheduled, found.ready, found.claimed, found.done, found.dead


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
