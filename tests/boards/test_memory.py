"""Properties that only boards in memory have."""

from __future__ import annotations

import asyncio
import tracemalloc
from typing import Any

import pytest

from rxdispatch.boards.base import Board
from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.errors import ConfigError
from rxdispatch.task import Task
from rxdispatch.testing import run_virtual
from tests.boards.places import counts, order


async def _cycle(board: Board[Any], rounds: int, *, release: bool) -> None:
    """Submit tasks and claim them by their ids."""
    for n in range(rounds):
        ids = [f"{n}-{i}" for i in range(100)]
        await board.submit([Task("x" * 1000, id=i) for i in ids])
        if release:
            claims = await board.claim(100)
            await board.settle([claim.release() for claim in claims])
        claims = await board.claim(100, ids=ids)
        await board.settle([claim.done() for claim in claims])


@pytest.mark.parametrize("release", [False, True])
async def test_claims_by_id_leave_nothing_behind(release: bool) -> None:
    """A board whose tasks are only claimed by id does not grow."""
    board: MemoryBoard[str] = MemoryBoard("b")
    await _cycle(board, 30, release=release)
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        await _cycle(board, 100, release=release)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert (0, 0, 0, 13_000, 0) == await counts(board)
    # The tasks have 10 MB in all; the queues may keep a little more than a tenth of that.
    assert grown < 2_500_000


async def test_order_survives_the_clearing() -> None:
    """The order is kept when many tasks are claimed from the middle and released."""
    board: MemoryBoard[int] = MemoryBoard("b")
    ids = [f"{n}" for n in range(5000)]
    await board.submit([Task(0, id=i) for i in ids[:2500]])
    odd = await board.claim(5000, ids=ids[1:2500:2])
    await board.submit([Task(0, id=i) for i in ids[2500:]])
    assert ids[:2500:2] + ids[2500:] == await order(board)
    await board.settle([claim.release() for claim in odd[::-1]])
    assert ids == await order(board)


async def test_delayed_tasks_that_are_cancelled_are_forgotten() -> None:
    """The board drops cancelled tasks long before they would be due."""
    board: MemoryBoard[int] = MemoryBoard("b", dead_limit=1)
    for k in range(10):
        ids = [f"{k}-{n}" for n in range(500)]
        await board.submit([Task(0, id=i, delay=3600.0) for i in ids])
        await board.cancel(ids)
    engine: Any = board._engine
    assert len(engine._table._later) <= 1500
    await board.submit(Task(0, id="late", delay=10.0))
    assert (1, 0, 0, 0, 1) == await counts(board)
    assert 9.9 < ((await board._intakes.claim_batch(1)).due_in or 0.0) <= 10.0


async def test_a_board_needs_no_hub() -> None:
    """A board that is made without a hub shares its tasks with no other."""
    one: MemoryBoard[int] = MemoryBoard("b")
    two: MemoryBoard[int] = MemoryBoard("b")
    await one.submit(Task(0))
    assert (0, 0, 0, 0, 0) == await counts(two)
    with pytest.raises(ConfigError, match=r"^max_crashes must be an int >= 0, got -1"):
        MemoryBoard("c", max_crashes=-1)


def test_hours_pass_in_no_time() -> None:
    """Delays and leases follow the loop's clock, even a virtual one."""

    async def hours() -> float:
        board: MemoryBoard[int] = MemoryBoard("b")
        await board.submit(Task(0, delay=3 * 3600.0))
        with board.claims().subscribe(lambda claim: board._intakes.post([claim.done()])):
            await board.join()
        return asyncio.get_running_loop().time()

    assert 3 * 3600.0 <= run_virtual(hours()) <= 3 * 3600.0 + 0.05
