"""The index of a process is bounded by the size of the board."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Generator
from typing import Any

import pytest

from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.boards.shm.local import local_index as find
from rxdispatch.boards.shm.local.mark_heap import MarkHeap
from rxdispatch.task import Task

Board = SharedMemoryBoard[Any]

FEW = 1024


@pytest.fixture
def board() -> Generator[Board]:
    """Yield a new board."""
    with Board.create(f"growth-{os.getpid()}", capacity=20_000) as made:
        yield made
        made.unlink()


def entries(board: Board) -> int:
    """Return how many entries for tasks the board's handle keeps."""
    local_index = board._shared._local_index
    ready = [heap for queue in local_index._ready.values() for heap in queue.levels.values()]
    heaps = (local_index._later, local_index._limits, *ready)
    return sum(len(heap) + len(heap.known) for heap in heaps)


async def test_tasks_with_a_ttl_that_are_done(board: Board) -> None:
    """The handle drops the time limits of done tasks long before they pass."""
    for _ in range(20):
        await board.submit(Task(n, ttl=3600.0) for n in range(500))
        await board.settle([claim.done() for claim in await board.claim(500)])
        assert entries(board) <= 2 * FEW
    assert 10_000 == (await board.counts()).done


@pytest.mark.parametrize("look", ["lag", "join", "full"])
async def test_tasks_that_others_have_done(board: Board, look: str) -> None:
    """A process that only looks or waits, or has no free slot, drops the entries too."""
    with Board.attach(board.name) as watcher:
        for _ in range(20):
            await board.submit(Task(n, priority=1) for n in range(500))
            if look == "lag":
                await watcher.lag()
            elif look == "join":
                await watcher._shared.tick(None)
            else:
                assert [] == await watcher.claim(0)
            await board.settle([claim.done() for claim in await board.claim(500)])
            assert entries(watcher) <= 2 * FEW


async def test_delayed_tasks_that_are_cancelled(board: Board) -> None:
    """The handle drops entries of cancelled tasks long before they would be due."""
    for k in range(20):
        ids = [f"{k}-{n}" for n in range(500)]
        await board.submit(Task(0, id=i, delay=3600.0) for i in ids)
        assert [] == await board.claim(1)
        await board.cancel(ids)
        await board.redrive(ids)
        await board.settle([claim.done() for claim in await board.claim(500)])
        assert entries(board) <= 2 * FEW


async def test_the_lag_lets_others_run(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop gets a turn after a bounded number of steps."""
    monkeypatch.setattr(find, "_SLICE", 100)
    with Board.attach(board.name) as worker:
        await board.submit(Task(n, priority=1) for n in range(1000))
        await board.submit(Task(n, id=f"{n}") for n in range(1000))
        assert 0 < await board.lag() < 60
        claims = [*await worker.claim(999), *await worker.claim(999, ids=[*map(str, range(999))])]
        await worker.settle(claim.done() for claim in claims)
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(count())
        assert 0 < await board.lag() < 60
        counting.cancel()
        # Ten slices of the tasks with a priority, and nearly ten of the ring.
        assert 17 <= turns <= 21


async def test_the_lag_of_many_priorities(board: Board) -> None:
    """Priorities whose tasks are all done do not hide the others."""
    with Board.attach(board.name) as worker:
        await board.submit(Task(0, priority=p) for p in range(200, 100, -1))
        await board.submit(Task(0, priority=1))
        await board.lag()
        await worker.settle([claim.done() for claim in await worker.claim(100)])
        assert 0 < await board.lag() < 60
        assert 1 == len(board._shared._local_index._ready[0].levels)


async def test_tracebacks_leave_room_for_tasks() -> None:
    """Letters with a traceback take a quarter of the board; later ones keep only the error."""
    error = ExceptionGroup("many", [ValueError("ü" * 1000) for _ in range(10)])
    with Board.create(f"letters-{os.getpid()}", capacity=1000) as board:
        for k in range(5):
            await board.submit(Task(n, id=f"{k}-{n}") for n in range(50))
            await board.settle([claim.dead("no", error) for claim in await board.claim(50)])
        letters = [letter async for letter in board.dead_letters()]
        with_one = [letter.task.id for letter in letters if letter.traceback]
        assert [letter.task.id for letter in letters[: len(with_one)]] == with_one
        # They have 2,024 cells in all; each letter takes 48.
        assert 43 == len(with_one)
        assert {"ExceptionGroup: many (10 sub-exceptions)"} == {x.error for x in letters}
        assert 400 == len((await board.submit(Task(n) for n in range(400))).accepted)
        board.unlink()


async def test_a_board_that_is_closed_while_its_lag_is_looked_for(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call raises an error, and does not read unmapped memory."""
    monkeypatch.setattr(find, "_SLICE", 10)
    with Board.attach(board.name) as worker, Board.attach(board.name) as watcher:
        await board.submit(Task(n, priority=1) for n in range(100))
        await watcher.lag()
        await worker.claim(99)
        looking = asyncio.create_task(watcher.lag())
        await asyncio.sleep(0)
        watcher.close()
        with pytest.raises(ValueError, match="board must be open"):
            await looking


def test_a_heap_yields_what_counts() -> None:
    """A heap yields entries in order after any changes, and holds few stale ones."""
    marks = dict.fromkeys(range(5000), 1)
    heap = MarkHeap(lambda at: marks[at >> 3], 0)
    for cell in range(5000):
        heap.push(((cell * 7919) % 5000, cell, 1))
        if cell >= 100:
            marks[cell - 100] = 2
        assert len(heap) <= 1024
    left = sorted(((cell * 7919) % 5000, cell, 1) for cell in range(4900, 5000))
    while not heap.tidy(10):
        pass
    assert left[0] == heap.first()
    assert left[:3] == heap.some(3)
    found: list[tuple[int, ...]] = []
    while (entry := heap.first()) is not None:
        found.append(entry)
        heap.pop()
    assert left == found
    assert 0 == len(heap)
    assert {} == heap.known
