"""Background work of a board does not run in the context of a caller."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from rxdispatch.boards.base import Board
from rxdispatch.boards.task_codec import NewTask
from rxdispatch.claim import Claim
from rxdispatch.results import TaskEvent
from rxdispatch.task import Task
from tests.boards.places import Place

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


def watch(board: Board[Any], step: str) -> list[str]:
    """Return a list to which each call of a method of the engine adds the tenant in its context."""
    engine: Any = board._engine
    plain: Callable[..., Any] = getattr(engine, step)
    seen: list[str] = []

    async def run(*args: Any) -> Any:
        seen.append(tenant.get())
        return await plain(*args)

    setattr(engine, step, run)
    return seen


async def test_giving_back(place: Place) -> None:
    """Claims are given back without the caller's context."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0))
        (claim,) = await board.claim(1)
        seen = watch(board, "settle")
        tenant.set("ACME")
        board._intakes.give_back([claim])
        await board._intakes.finished()
        assert ["nobody"] == seen


async def test_waiting_to_be_joined(place: Place) -> None:
    """Polls do not run in the subscriber's context, which may have ended."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0))
        seen = watch(board, "tick")
        tenant.set("ACME")
        ended = asyncio.Event()

        def settle(claim: Claim[Any]) -> None:
            board._intakes.post([claim.done()])

        board.claims(until="joined").subscribe(settle, on_completed=ended.set)
        async with asyncio.timeout(10):
            await ended.wait()
        assert {"nobody"} == set(seen)


async def test_writing_for_others(server: Place) -> None:
    """Callers that share a write do not see each other's context."""
    async with server.bench() as bench:
        board = bench.board()
        seen: list[str] = []
        plain = board._group._write

        async def write(entries: Sequence[NewTask]) -> list[bool]:
            seen.append(tenant.get())
            return await plain(entries)

        board._group._write = write

        async def submit(name: str) -> None:
            tenant.set(name)
            await board.submit(Task(name))

        await asyncio.gather(*(submit(name) for name in ("one", "two", "three")))
        assert ["one", "nobody"] == seen


async def test_claims_on_a_server(server: Place) -> None:
    """A claim call runs without the caller's context, as it may outlive the caller."""
    async with server.bench() as bench:
        board = bench.board()
        seen = watch(board, "claim")
        tenant.set("ACME")
        await board.claim(1)
        assert ["nobody"] == seen


async def test_events_of_others(place: Place) -> None:
    """All subscribers receive events without the context of the first one."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        seen: list[str] = []

        def see(event: TaskEvent) -> None:
            seen.append(tenant.get())

        async def subscribe() -> None:
            tenant.set("ACME")
            board.events.subscribe(see)

        await asyncio.create_task(subscribe())
        with board.events.subscribe(see):
            async with asyncio.timeout(10):
                while len(seen) < 2:
                    # Wait until the server counts the listener.
                    await other.submit(Task(0))
                    await asyncio.sleep(0.01)
        assert {"nobody"} == set(seen)
