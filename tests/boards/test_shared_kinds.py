"""Kinds on a board in shared memory: the ring, the table of kinds, and the count for ``join``."""

from __future__ import annotations

import asyncio
import itertools
import os
from collections.abc import Coroutine, Generator
from typing import Any

import pytest

from rxdispatch.boards.shm.board import SharedMemoryBoard
from rxdispatch.boards.shm.local import census
from rxdispatch.boards.shm.storage import kind_table, layout
from rxdispatch.errors import ConfigError
from rxdispatch.task import Task

Board = SharedMemoryBoard[Any]

_names = itertools.count()


@pytest.fixture
def board() -> Generator[Board]:
    """Yield a new board."""
    with Board.create(f"kinds-{os.getpid()}-{next(_names)}", capacity=2000) as made:
        yield made
        made.unlink()


def ring(board: Board) -> tuple[int, int]:
    """Return the first place of the ring, and how many places it has."""
    load = board._shared.mapping.load
    head = load(layout.RING_HEAD)
    return head, load(layout.RING_TAIL) - head


def hints(board: Board) -> int:
    """Return how many hints there were."""
    return board._shared.mapping.load(layout.HINTS)


def number(board: Board, raw: bytes) -> int:
    """Return the number in the mark of a task."""
    found = board._shared._cells.find(raw)
    assert found is not None
    return layout.number_of(found[1])


def instantly(work: Coroutine[Any, Any, Any]) -> None:
    """Run a coroutine that waits for nothing, within a step of the loop."""
    while True:
        try:
            work.send(None)
        except StopIteration:
            return


async def taken(board: Board, limit: int, **options: Any) -> list[str]:
    """Claim tasks, settle them, and return their ids."""
    claims = await board.claim(limit, **options)
    assert all(await board.settle([claim.done() for claim in claims]))
    return [claim.task.id for claim in claims]


async def test_what_others_want_stays_in_the_ring(board: Board) -> None:
    """No task moves and none is announced, and places whose tasks are gone are passed."""
    with Board.attach(board.name) as other:
        await board.submit([Task(0, id=f"{n}", kind="xa"[n % 2]) for n in range(100)])
        assert [f"{n}" for n in range(1, 100, 2)] == await taken(board, 100, kinds=["a"])
        assert (0, 100) == ring(board)
        assert [f"{n}" for n in range(0, 100, 2)] == await taken(other, 100, kinds=["x"])
        assert (100, 0) == ring(board)
        assert 0 == hints(board)


async def test_a_run_of_one_kind_moves_the_ring(board: Board) -> None:
    """Claims that may take all that is at the head do so as claims without kinds do."""
    await board.submit([Task(0, id=f"{n}", kind="a") for n in range(300)])
    await board.submit([Task(0, id="x", kind="x")])
    assert [f"{n}" for n in range(200)] == await taken(board, 200, kinds=["a", "b"])
    assert (200, 101) == ring(board)
    assert [*(f"{n}" for n in range(200, 300)), "x"] == await taken(board, 200)


async def test_a_task_that_nobody_takes_holds_no_ring(board: Board) -> None:
    """Before the ring is full, the task leaves it; it keeps its place among all tasks."""
    await board.submit([Task(0, id="old", kind="x")])
    slots = board._shared.mapping.geometry.ring_slots
    done = 0
    while done < 3 * slots:
        ids = [f"{done + n}" for n in range(500)]
        await board.submit([Task(0, id=i, kind="a") for i in ids])
        assert ids == await taken(board, 500, kinds=["a"])
        done += 500
        assert ring(board)[1] <= slots * 7 / 8 + 500
    assert 1 == hints(board)
    await board.submit([Task(0, id="new", kind="x")])
    with Board.attach(board.name) as other:
        assert ["old"] == await taken(other, 1, kinds=["x"])
        assert ["new"] == await taken(other, 2)


async def test_a_kind_is_looked_at_once(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A claim goes on where the last claim of the same kinds has ended."""
    await board.submit([Task(0, kind="x") for _ in range(1000)])
    await board.submit([Task(0, id="y", kind="a")])
    assert ["y"] == await taken(board, 9, kinds=["a"])
    looks = 0
    allows = kind_table.KindChoice.allows

    def counted(choice: kind_table.KindChoice, kind: int) -> bool:
        nonlocal looks
        looks += 1
        return allows(choice, kind)

    monkeypatch.setattr(kind_table.KindChoice, "allows", counted)
    for n in range(10):
        assert [] == await board.claim(9, kinds=["a"])
        await board.submit([Task(0, id=f"{n}", kind="a")])
        assert [f"{n}"] == await taken(board, 9, kinds=["a"])
    assert looks < 100


async def test_a_ring_that_passes_a_claim(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that is stopped for a turn of the ring finds another task in the place."""
    await board.submit([Task(0, kind="x"), Task(0, kind="a")])
    walk = board._shared._ring_walk
    turns = iter([(1000, 1000), (1000, 1000), (1000, 1000), (40, 0)])
    run, runs = walk.run, list[list[int]]()

    def late(choice: kind_table.KindChoice, place: int, stop: int) -> list[int]:
        with Board.attach(board.name) as other:
            instantly(taken(other, 2))
            for submitted, done in turns:
                instantly(other.submit([Task(0, kind="x") for _ in range(submitted)]))
                instantly(taken(other, done))
        runs.append(run(choice, place, stop))
        return runs[-1]

    monkeypatch.setattr(walk, "run", late)
    assert [] == await taken(board, 9, kinds=["a"])
    assert [[]] == runs
    assert (3002, 40) == ring(board)


async def test_many_choices(board: Board) -> None:
    """A process remembers some of them, and finds tasks for all."""
    await board.submit([Task(0, id=f"{n}", kind=f"{n}") for n in range(200)])
    for n in range(0, 200, 2):
        assert [f"{n}"] == await taken(board, 1, kinds=[f"{n}", f"{n + 1}"])
    assert 100 == len(await board.claim(200))
    assert len(board._shared._ring_walk._seen) <= 64


async def test_a_heap_for_each_kind(board: Board) -> None:
    """Tasks outside the ring are merged by priority and place."""
    for n, kind in enumerate("abcabcabc"):
        await board.submit([Task(0, id=f"{n}{kind}", kind=kind, priority=n // 3)])
    await board.submit([Task(0, id="9b", kind="b")])
    expected = ["6a", "7b", "3a", "4b", "0a", "1b", "9b"]
    assert expected == await taken(board, 20, kinds=["b", "a"])
    assert ["8c", "5c", "2c"] == await taken(board, 20)


async def test_too_many_kinds(board: Board) -> None:
    """A submission of one too many adds nothing; known kinds go on."""
    for start in range(0, 1020, 500):
        await board.submit([Task(0, kind=f"{n}") for n in range(start, min(start + 500, 1023))])
    rule = r"^a board in shared memory must have at most 1,024 kinds of tasks in its life, got 'one"
    with pytest.raises(ConfigError, match=rule):
        await board.submit([Task(0, kind="1022"), Task(0, kind="one more")])
    with pytest.raises(ConfigError, match=rule):
        await board.pause(kind="one more")
    await board.resume(kind="one more")
    assert [] == await board.claim(5, kinds=["one more"])
    assert 1023 == (await board.counts()).ready
    await board.pause(kind="1022")
    await board.pause(kind="default")
    await board.submit([Task(0, kind="1022"), Task(0, kind="default"), Task(0, kind="0")])
    with Board.attach(board.name) as other:
        kinds = [claim.task.kind for claim in await other.claim(1000)]
        assert [f"{n}" for n in range(1000)] == kinds
        kinds = [claim.task.kind for claim in await other.claim(1000)]
        assert [*(f"{n}" for n in range(1000, 1022)), "0"] == kinds
        await other.resume(kind="1022")
        assert ["1022"] * 2 == [claim.task.kind for claim in await other.claim(1000)]
        await other.resume(kind="default")
        assert ["default"] == [claim.task.kind for claim in await board.claim(1000)]


async def test_a_process_that_dies_while_it_pauses(board: Board) -> None:
    """Each word that it wrote, or did not write, leaves a board on which others go on."""
    await board.submit([Task(0, kind="x", id=f"x{n}") for n in range(3)])
    kinds = board._shared._cells.kinds
    kinds._set(layout.PAUSED, layout.KINDS_PAUSED, True)
    assert ["x0"] == await taken(board, 1)
    await board.pause(kind="x")
    assert [] == await taken(board, 9)
    kinds.pause(False, "x")  # as a process does that dies before it wakes the others
    assert ["x1", "x2"] == await taken(board, 9)


@pytest.mark.parametrize("how", ["submit", "retry"])
async def test_a_kind_that_keeps_coming_is_not_joined(
    board: Board, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """
    A count over several turns of the loop sees a task that moves, or submits another at its end.

    The new cell may be one that the count has passed, and the old one is free before the count
    comes to it.
    """
    monkeypatch.setattr(census, "_PAGE", 1)
    await board.submit([Task(n, kind="x") for n in range(3)])
    await board.submit([Task(0, id="0", kind="a", max_attempts=99)])
    await taken(board, 3, kinds=["x"])
    ended = False

    async def chain() -> None:
        for n in range(1, 30):
            (claim,) = await board.claim(1, kinds=["a"])
            for _ in range(n % 4):
                await asyncio.sleep(0)
            if how == "retry":
                await board.settle(claim.retry("no"))
                continue
            await board.submit([Task(n, id=f"{n}", kind="a")])
            await board.settle(claim.done())
        nonlocal ended
        ended = True

    running = asyncio.create_task(chain())
    looks = 0
    while not ended:
        looks += 1
        unfinished = await board._shared.tick(["a"])
        assert ended or 0 < sum(unfinished[:3])
    await running
    assert looks > 3
    assert 1 == len(await taken(board, 9))
    assert 0 == sum((await board._shared.tick(["a"]))[:3])


async def test_the_count_of_kinds_lets_others_run(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop gets a turn after a bounded number of cells; a closed board is not read."""
    monkeypatch.setattr(census, "_PAGE", 100)
    await board.submit([Task(n, kind="x") for n in range(1000)])
    with Board.attach(board.name) as watcher:
        counting = asyncio.create_task(watcher._shared.tick(["x"]))
        turns = 0
        while not counting.done():
            await asyncio.sleep(0)
            turns += 1
        assert (0, 1000, 0, None) == counting.result()
        assert turns >= 10
        counting = asyncio.create_task(watcher._shared.tick(["x"]))
        await asyncio.sleep(0)
        watcher.close()
        with pytest.raises(ValueError, match="board must be open"):
            await counting


async def test_a_submission_under_way_is_not_counted(board: Board) -> None:
    """Tasks of a submitter that has died, or is stopped, do not exist."""
    await board.submit([Task(n, id=f"{n}", kind="a") for n in range(3)])
    mapping = board._shared.mapping
    mapping.store(layout.STAGING, number(board, b"0"))
    assert 0 == sum((await board._shared.tick(["a"]))[:3])
    mapping.store(layout.STAGING, 0)
    assert 3 == sum((await board._shared.tick(["a"]))[:3])


async def test_a_submission_that_ends_during_the_count(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its tasks were left out, so the count starts again."""
    monkeypatch.setattr(census, "_PAGE", 1)
    mapping = board._shared.mapping
    await board.submit([Task(0, id="new", kind="a")])
    await board.submit([Task(0, id="old", kind="a")])
    (claim,) = await board.claim(1, ids=["old"])
    mapping.store(layout.STAGING, number(board, b"new"))
    counting = asyncio.create_task(board._shared.tick(["a"]))
    await asyncio.sleep(0)
    mapping.store(layout.STAGING, 0)
    await board.settle(claim.done())
    assert (0, 1, 0, None) == await counting


async def test_the_count_of_each_kind_reads_names_once(
    board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process reads one task of each new kind, and the loop gets turns during the count."""
    monkeypatch.setattr(census, "_PAGE", 100)
    await board.submit([Task(n, id=f"{n}", kind="abc"[n % 3]) for n in range(999)])
    await board.pause(kind="b")
    with Board.attach(board.name) as watcher:
        read: list[int] = []
        cells = watcher._shared._cells
        plain = cells.read

        def noted(cell: int, mark: int) -> Any:
            read.append(cell)
            return plain(cell, mark)

        monkeypatch.setattr(cells, "read", noted)
        counting = asyncio.create_task(watcher.kinds())
        turns = 0
        while not counting.done():
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 9
        assert {kind: (333, kind == "b") for kind in "abc"} == {
            kind: (state.unfinished, state.paused) for kind, state in counting.result().items()
        }
        assert 3 == len(read)
        await watcher.kinds()
        assert 3 == len(read)


async def test_a_kind_that_cannot_be_read(board: Board) -> None:
    """Its tasks count as ``default`` until the process comes across the name."""
    await board.submit([Task(0, id="x", kind="x"), Task(0, id="default")])
    with Board.attach(board.name) as watcher:
        cells = watcher._shared._cells
        found = cells.find(b"x")
        assert found is not None
        at = cells.mapping.geometry.data + found[0] * layout.CELL
        whole = bytes(cells.mapping.mmap[at : at + layout.CELL])
        spoilt = whole.replace(b"x\x99", b"x\xc1")
        assert whole != spoilt
        cells.mapping.mmap[at : at + layout.CELL] = spoilt
        assert ["default"] == list(await watcher.kinds())
        assert 2 == (await watcher.kinds())["default"].unfinished
        await watcher.resume(kind="x")
        assert ["default", "x"] == list(await watcher.kinds())
