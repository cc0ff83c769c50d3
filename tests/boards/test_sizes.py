"""Requests and replies are limited in bytes, not only in number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from rxdispatch.boards.base import Board
from rxdispatch.boards.engine import ClaimReply, DeadRow
from rxdispatch.boards.task_codec import NewTask
from rxdispatch.claim import Settlement
from rxdispatch.task import Task
from tests.boards.places import Place

MIB = 1024 * 1024


def watch_claims(board: Board[Any]) -> list[int]:
    """Return a list to which each reply to a claim adds the size of its ids and records."""
    engine, sizes = board._engine, list[int]()
    plain = engine.claim

    async def claim(
        limit: int,
        ids: Sequence[str] | None,
        kinds: Sequence[str] | None,
        worker: str,
        lease: float,
    ) -> ClaimReply:
        haul = await plain(limit, ids, kinds, worker, lease)
        sizes.append(sum(len(found.id) + len(found.record) for found in haul.found))
        return haul

    engine.claim = claim  # type: ignore[method-assign]
    return sizes


async def submit_large(board: Board[Any], count: int) -> list[str]:
    """Submit tasks of some 900 KB each and return their ids."""
    ids = [f"{n}" for n in range(count)]
    for task_id in ids:
        await board.submit(Task("x" * 900_000, id=task_id))
    return ids


@pytest.mark.parametrize("by_id", [False, True])
async def test_large_tasks_are_claimed_in_several_replies(server: Place, by_id: bool) -> None:
    """One call brings all of them in order, and no reply has much more than 8 MiB."""
    async with server.bench() as bench:
        board = bench.board()
        ids = await submit_large(board, 60)
        sizes = watch_claims(board)
        wanted = [*ids[::-1], "none"] if by_id else None
        claims = await board.claim(100, ids=wanted)
        assert (ids[::-1] if by_id else ids) == [claim.task.id for claim in claims]
        assert max(sizes) < 16 * MIB
        await board.settle(claim.done() for claim in claims)


async def test_ids_count_in_replies(server: Place) -> None:
    """A thousand small tasks fit one reply, but fewer do if their ids are long."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task("x" * 8000, id=f"{n:01000}") for n in range(1000))
        sizes = watch_claims(board)
        assert 1000 == len(await board.claim(1000))
        assert 2 == len(sizes)
        assert max(sizes) < 8.5 * MIB


async def test_a_claim_carries_no_errors(server: Place) -> None:
    """The reply does not contain the last error of a task."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(n) for n in range(500))
        claims = await board.claim(500)
        await board.settle(claim.retry("ü" * 2000) for claim in claims)
        client: Any = bench.hub.client
        plain, replies = client.run, list[Any]()

        async def run(*args: Any, **options: Any) -> Any:
            replies.append(await plain(*args, **options))
            return replies[-1]

        client.run = run
        again = await board.claim(500)
        assert [2] * 500 == [claim.attempt for claim in again]
        assert {9} == {len(past) for past in replies[0][4]}


async def test_ids_count_in_requests(place: Place) -> None:
    """A submit is written in parts of some 4 MiB of ids and records."""
    async with place.bench() as bench:
        board = bench.board()
        engine, sizes = board._engine, list[int]()
        plain = engine.submit

        async def submit(entries: Sequence[NewTask]) -> list[bool]:
            sizes.append(sum(len(entry.id) + len(entry.record) for entry in entries))
            return await plain(entries)

        board._group._write = submit
        tasks = [Task("x" * 3500, id=f"{n:01000}") for n in range(1000)]
        assert 1000 == len((await board.submit(tasks)).accepted)
        assert 2 == len(sizes)
        assert max(sizes) < 4.5 * MIB


async def test_pages_of_dead_letters_are_bounded(place: Place) -> None:
    """All letters come in order, and a page from a server has hardly more than 2 MiB."""
    async with place.bench() as bench:
        board = bench.board()
        ids = await submit_large(board, 10)
        ids += (await board.submit(Task(n, id=f"small {n}") for n in range(2000))).accepted
        await board.settle(claim.dead("no") for claim in await board.claim(3000))
        engine, sizes = board._engine, list[int]()
        plain = engine.dead

        async def dead(after: str) -> tuple[list[DeadRow], str]:
            page, further = await plain(after)
            sizes.append(sum(len(row.record) for row in page))
            return page, further

        engine.dead = dead  # type: ignore[method-assign]
        assert ids == [letter.task.id async for letter in board.dead_letters()]
        assert place.kind == "memory" or max(sizes) < 3 * MIB


async def test_letters_whose_records_are_gone_hide_no_others(server: Place) -> None:
    """A page whose records are all gone is not taken for the last page."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(n, id=f"{n}") for n in range(600))
        await board.settle(claim.dead("no") for claim in await board.claim(600))
        gone = [f"{n}" for n in range(590)]
        await bench.hub.client.call("spoil", "HDEL", bench.key("tasks"), *gone)
        left = [f"{n}" for n in range(590, 600)]
        assert left == [letter.task.id async for letter in board.dead_letters()]


async def test_large_tasks_that_come_again(server: Place) -> None:
    """Large tasks are recognized as duplicates without reading their records."""
    async with server.bench() as bench:
        board = bench.board()
        large = await submit_large(board, 5)
        ids = large + [f"small {n}" for n in range(0, 300, 2)]
        await board.submit(Task(0, id=i) for i in ids[5:])
        again = [*large, *(f"small {n}" for n in range(300)), large[0]]
        result = await board.submit(Task(0, id=i) for i in again)
        assert tuple(f"small {n}" for n in range(1, 300, 2)) == result.accepted
        assert (*ids, large[0]) == result.duplicates


async def test_tracebacks_count_in_requests(place: Place) -> None:
    """Large settlements are written in parts of some 4 MiB, and answered in order."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(n, id=f"{n}") for n in range(1000))
        claims = await board.claim(1000)
        error = ExceptionGroup("many", [ValueError("ü" * 1000) for _ in range(10)])
        engine, sizes = board._engine, list[int]()
        plain = engine.settle

        async def settle(settlements: Sequence[Settlement]) -> list[bool]:
            sizes.append(sum(len((s.error + s.traceback).encode()) for s in settlements))
            return await plain(settlements)

        engine.settle = settle  # type: ignore[method-assign]
        wanted = [
            claim.dead("no", error) if n % 8 else claim.done() for n, claim in enumerate(claims)
        ]
        assert [True] * 1000 == await board.settle(wanted)
        assert 2 == len(sizes)
        assert max(sizes) <= 4 * MIB
        assert 875 == (await board.counts()).dead
