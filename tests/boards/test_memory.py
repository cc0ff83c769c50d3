"""Properties that only boards in memory have."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
import weakref
from typing import Any

import pytest
from reactivex import operators as rx

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
    assert 9.9 < ((await board._engine.claim(1, None, None, "w", 30.0)).due_in or 0.0) <= 10.0


async def test_kinds_are_forgotten() -> None:
    """A kind costs nothing once its last task is done, dead or discarded."""
    board: MemoryBoard[int] = MemoryBoard("b", dead_limit=2)
    engine: Any = board._engine
    kinds: dict[str, Any] = engine._table.kinds.named
    for n in range(5):
        await board.submit([Task(0, id=f"{n}-{i}", kind=f"kind-{n}") for i in range(3)])
    assert ["default", *(f"kind-{n}" for n in range(5))] == list(kinds)
    claims = await board.claim(6)
    await board.settle([claim.done() for claim in claims[:3]])
    await board.settle([claim.retry("no") for claim in claims[3:]])
    await board.cancel([f"{n}-{i}" for n in range(2, 5) for i in range(3)])
    assert ["default", "kind-1"] == list(kinds)
    assert 2 == await board.redrive()
    assert ["default", "kind-1", "kind-4"] == list(kinds)
    assert ["1-0", "1-1", "1-2", "4-1", "4-2"] == await order(board)


async def test_what_is_unfinished_of_a_kind() -> None:
    """The three counts are those of the kinds; unknown ones have nothing."""
    board: MemoryBoard[int] = MemoryBoard("b")
    await board.submit([Task(0, kind=kind) for kind in "aaabbc"])
    await board.submit([Task(0, kind="a", delay=9.0), Task(0, kind="b", delay=9.0)])
    await board.claim(1)
    for kinds, expected in (("a", (1, 2, 1)), ("abx", (2, 4, 1)), ("x", (0, 0, 0))):
        assert expected == (await board._engine.tick(list(kinds)))[:3]
    assert (2, 5, 1) == (await board._engine.tick(None))[:3]


async def test_a_board_with_ready_tasks_is_collected() -> None:
    """The garbage collector does not see references from rows, so these must not form a cycle."""
    board: MemoryBoard[int] = MemoryBoard("b")
    await board.submit([Task(0, kind="a"), Task(0)])
    engine: Any = board._engine
    table: weakref.ref[Any] = weakref.ref(engine._table)
    del board, engine
    gc.collect()
    assert table() is None


async def test_each_kind_gives_its_own_signals() -> None:
    """A signal comes when a kind leaves zero ready tasks, whatever is ready of other kinds."""
    board: MemoryBoard[int] = MemoryBoard("b")
    hints: list[str] = []
    signals = board._engine.signals.pipe(rx.filter(lambda signal: signal == "ready"))
    with signals.subscribe(hints.append):
        for kind, expected in (("x", 1), ("a", 2), ("a", 2), ("x", 2)):
            await board.submit(Task(0, kind=kind))
            assert expected == len(hints)
        (first, _) = await board.claim(9, kinds=["a"])
        await board.settle([first.release()])
        assert 3 == len(hints)
        await board.pause(kind="x")
        assert 3 == len(hints)
        await board.resume(kind="x")
        assert 4 == len(hints)


def test_the_end_of_a_kind_wakes_those_who_join_it() -> None:
    """They do not wait for their next look, whatever is unfinished of other kinds."""

    async def joined() -> float:
        board: MemoryBoard[int] = MemoryBoard("b")
        await board.submit([Task(0, id="a", kind="a"), Task(0, id="x", kind="x")])
        (claim,) = await board.claim(1, kinds=["a"])
        joining = asyncio.create_task(board.join(kinds=["a", "none"]))
        await asyncio.sleep(0.1)
        await board.settle([claim.done()])
        await joining
        return asyncio.get_running_loop().time()

    assert 0.1 <= run_virtual(joined()) < 0.2


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
