"""Workers that are parked on a board, and what the tests of hand-over ask of them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from reactivex import Observable
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.operators.tasks import _claim as claim_module
from rxdispatch.store.embedded.server import EmbeddedServer
from rxdispatch.store.url import Target
from tests.failures.fleet import Account, eventually, subscribed
from tests.servers import valkey_server

__all__ = [
    "DELIVERY_LEASE",
    "Field",
    "Hand",
    "field",
    "for_ever",
    "ids",
    "messages_read",
    "never_polls",
    "parked_workers",
    "tasks",
]

Board = rxd.Board[Any]

#: Seconds in which a worker must confirm what was handed to it.
DELIVERY_LEASE = 2.0

_NEVER = 3600.0


def tasks(count: int, first: int = 0, **options: Any) -> list[rxd.Task[int]]:
    """Return tasks with ids t0, t1 and so on, whose payload is their number."""
    return [rxd.Task(i, id=f"t{i}", **options) for i in range(first, first + count)]


def ids(count: int) -> list[str]:
    """Return the ids of the first tasks."""
    return [f"t{i}" for i in range(count)]


async def for_ever(_: rxd.Task[Any]) -> None:
    """Run until cancelled."""
    await asyncio.Event().wait()


def never_polls(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let workers claim only when they have a reason, so that a test fails if one is missing."""
    monkeypatch.setattr(claim_module, "POLL", _NEVER)


async def parked_workers(hub: rxd.Hub, board: str) -> int:
    """Return how many workers are parked on a board."""
    return int(await hub.client.call("parked", "ZCARD", b"{rxd:%s}:parked" % board.encode()))


@attrs.define
class Hand:
    """
    A worker in this process.

    Attributes:
        started: The id of each task whose handler began, once per run.
        ended: The id of each task whose handler ended normally, once per run.
        cancelled: The id of each task whose handler was cancelled.
        outcomes: The status of each outcome, with the id of the task.
        most: How many handlers have run at a time.
    """

    hub: rxd.Hub
    board: Board
    name: str
    work: Callable[[rxd.Task[Any]], Awaitable[None]]
    started: list[str] = attrs.field(factory=list[str])
    ended: list[str] = attrs.field(factory=list[str])
    cancelled: list[str] = attrs.field(factory=list[str])
    outcomes: list[tuple[str, str]] = attrs.field(factory=list[tuple[str, str]])
    running: int = 0
    most: int = 0
    stream: asyncio.Task[Any] | None = None

    async def handler(self, task: rxd.Task[Any]) -> None:
        self.started.append(task.id)
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.work(task)
        except asyncio.CancelledError:
            self.cancelled.append(task.id)
            raise
        finally:
            self.running -= 1
        self.ended.append(task.id)

    def outcome(self, outcome: rxd.Outcome[Any, Any]) -> None:
        self.outcomes.append((outcome.claim.task.id, outcome.status))

    def pipeline(self, claims: Observable[Any], most: int) -> Observable[Any]:
        return claims.pipe(
            ops.execute(self.handler, max_concurrent=most),
            ops.settle(self.board),
            rx.do_action(self.outcome),
        )

    def start(self, most: int = 4, **options: Any) -> None:
        """Run until the end of the field."""
        claims = self.board.claims(worker=self.name, **options)
        self.stream = asyncio.create_task(rxd.run(self.pipeline(claims, most)))

    async def stop(self) -> None:
        """Dispose the stream."""
        if self.stream is not None:
            self.stream.cancel()
            await asyncio.wait({self.stream})


async def messages_read(hand: Hand) -> None:
    """Wait until the worker has read what was published before."""
    channels: Any = hand.hub._channels
    await channels.barrier(10.0)


@attrs.define
class Field:
    """A server with one board, and workers that are parked on it."""

    server: EmbeddedServer
    hub: rxd.Hub
    board: Board
    account: Account
    hands: list[Hand] = attrs.field(factory=list[Hand])

    async def parked(self) -> int:
        """Return how many workers are parked."""
        return await parked_workers(self.hub, self.board.name)

    @asynccontextmanager
    async def hand(
        self,
        work: Callable[[rxd.Task[Any]], Awaitable[None]] | None = None,
        *,
        target: Target | None = None,
        name: str = "",
        most: int = 4,
        start: bool = True,
        settings: rxd.Settings | None = None,
        **options: Any,
    ) -> AsyncGenerator[Hand]:
        """Run a worker with its own hub during the block; at first it is parked."""

        async def nothing(_: rxd.Task[Any]) -> None:
            await asyncio.sleep(0)

        target = target or self.server.target
        async with rxd.connect(target.safe, settings=settings) as hub:
            board: Board = hub.board(self.board.name)
            hand = Hand(hub, board, name or f"w{len(self.hands)}", work or nothing)
            self.hands.append(hand)
            try:
                if start:
                    before = await self.parked()
                    hand.start(most, **options)

                    async def one_more() -> bool:
                        return await self.parked() > before

                    await eventually(one_more)
                yield hand
            finally:
                await hand.stop()
                await hand.board._intakes.finished()

    async def all_done(self, ids: list[str], within: float = 30.0) -> float:
        """Wait until the tasks are done; return how many seconds that took."""
        took = await eventually(lambda: self.account.finished(ids), within)
        assert self.account.settled_once(ids)
        return took

    def uncounted(self) -> bool:
        """Whether no attempt or crash was counted."""
        return not self.account.count("crashed", "dead", "retried")

    def runs(self) -> Counter[str]:
        """Return how often the handler of each task began."""
        return Counter(i for hand in self.hands for i in hand.started)


@asynccontextmanager
async def field(**options: Any) -> AsyncGenerator[Field]:
    """Run a server with a board."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: Board = hub.board("b", **options)
        async with subscribed(hub, board) as account:
            yield Field(server, hub, board, account)
