"""Dead letters: what they contain, how many are kept, and how they are redriven."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim
from rxdispatch.results import DeadLetter
from rxdispatch.task import Status, Task
from tests.boards.places import Place, counts, order, until


async def dead(board: Board[Any]) -> list[DeadLetter[Any]]:
    """Return the dead letters."""
    return [letter async for letter in board.dead_letters()]


async def test_what_a_dead_letter_tells(place: Place) -> None:
    """A dead letter has the task as submitted, the reason, the time and the attempts."""
    async with place.bench() as bench:
        board = bench.board()
        task = Task({"n": 1}, id="a", kind="k", priority=3, headers={"h": "1"}, timeout=2.0)
        await board.submit(task)
        (claim,) = await board.claim(1)
        await board.settle([claim.retry("first")])
        (claim,) = await board.claim(1)
        before = time.time()
        await board.settle([claim.dead("unfit", ValueError("second"))])
        after = time.time()
        (letter,) = await dead(bench.elsewhere())
        assert task == letter.task
        assert ("unfit", "ValueError: second", 2, 0) == (
            letter.reason,
            letter.error,
            letter.attempts,
            letter.crashes,
        )
        assert before - 0.01 <= letter.at <= after + 0.01


async def test_oldest_first(place: Place) -> None:
    """Letters come in the order of the deaths, even within one call, and their times grow."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abcdef"])
        claims = {claim.task.id: claim for claim in await board.claim(6)}
        await board.settle([claims["d"].dead("no")])
        await board.settle(claims[i].dead("no") for i in "fab")
        await board.cancel(["e", "c"])
        letters = await dead(board)
        assert [*"dfabec"] == [letter.task.id for letter in letters]
        times = [letter.at for letter in letters]
        assert sorted(set(times)) == times


async def test_no_dead_letters(place: Place) -> None:
    """A board without dead tasks gives an empty iteration."""
    async with place.bench() as bench:
        assert [] == await dead(bench.board())


async def test_many_dead_letters(place: Place) -> None:
    """More than one page of letters comes in order, each letter once."""
    async with place.bench() as bench:
        board = bench.board()
        ids = [f"{n}" for n in range(2300)]
        await board.submit([Task(0, id=i) for i in ids])
        await board.cancel(ids)
        assert ids == [letter.task.id for letter in await dead(board)]


async def test_an_iteration_sees_changes(place: Place) -> None:
    """Tasks that die or are redriven meanwhile neither repeat nor hide others."""
    async with place.bench() as bench:
        board = bench.board()
        ids = [f"{n}" for n in range(1500)]
        await board.submit([Task(0, id=i) for i in [*ids, "late"]])
        await board.cancel(ids)
        found: list[str] = []
        async for letter in board.dead_letters():
            found.append(letter.task.id)
            if len(found) == 1:
                await board.redrive(["0", "1499"])
                await board.cancel("late")
        assert [*ids[:1499], "late"] == found


async def test_only_so_many_are_kept(place: Place) -> None:
    """The oldest letter is discarded, and its id may be submitted again."""
    async with place.bench() as bench:
        board = bench.board(dead_limit=3)
        await board.submit([Task(0, id=i) for i in "abcde"])
        await board.cancel([*"abc"])
        assert [*"abc"] == [letter.task.id for letter in await dead(board)]
        await board.cancel([*"de"])
        assert [*"cde"] == [letter.task.id for letter in await dead(board)]
        assert (0, 0, 0, 0, 3) == await counts(board)
        assert await board.get("a") is None
        assert ("a",) == (await board.submit(Task(0, id="a"))).accepted
        assert ["a"] == await order(board)


async def test_many_are_discarded(place: Place) -> None:
    """If one call kills more tasks than are kept, the last ones stay."""
    async with place.bench() as bench:
        board = bench.board(dead_limit=10)
        ids = [f"{n}" for n in range(1800)]
        await board.submit([Task(0, id=i) for i in ids])
        await board.cancel(ids)
        assert ids[-10:] == [letter.task.id for letter in await dead(board)]
        assert (0, 0, 0, 0, 10) == await counts(board)


async def test_redrive_all(place: Place) -> None:
    """All dead tasks are ready again, with counters at 0 and no ttl."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=0)
        await board.submit(Task(0, id="crashed"))
        await board.claim(1, lease=10.0)
        await bench.later(20)
        await board.claim(0)
        await board.submit([Task(0, id="failed", max_attempts=1), Task(0, id="old", ttl=50.0)])
        (claim,) = await board.claim(1)
        await board.settle([claim.retry("no")])
        await bench.later(60)
        await board.claim(0)
        assert 3 == await bench.elsewhere().redrive()
        assert 0 == await board.redrive()
        await bench.later(60)
        claims = await board.claim(5)
        assert ["crashed", "failed", "old"] == [claim.task.id for claim in claims]
        assert [(1, 0)] * 3 == [(claim.attempt, claim.crashes) for claim in claims]
        assert (0, 0, 3, 0, 0) == await counts(board)


async def test_redrive_some(place: Place) -> None:
    """Only dead tasks with the given ids are redriven, each once."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abcd"])
        await board.cancel([*"abc"])
        assert 2 == await board.redrive(["c", "d", "none", "a", "c"])
        assert (0, 3, 0, 0, 1) == await counts(board)
        assert [*"dca"] == await order(board)
        assert 1 == await board.redrive("b")
        assert 0 == await board.redrive([])


async def test_redrive_many(place: Place) -> None:
    """More tasks than fit one chunk are redriven, by ids and without."""
    async with place.bench() as bench:
        board = bench.board()
        ids = [f"{n}" for n in range(2300)]
        await board.submit([Task(0, id=i) for i in ids])
        await board.cancel(ids)
        assert 1100 == await board.redrive(ids[:1100])
        assert 1200 == await board.redrive()
        assert (0, 2300, 0, 0, 0) == await counts(board)
        assert ids == await order(board)


async def test_redriven_tasks_can_die_again(place: Place) -> None:
    """The tasks die with their new error, and can be redriven again."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", max_attempts=1))
        for n in range(3):
            (claim,) = await board.claim(1)
            await board.settle([claim.retry(f"no {n}")])
            (letter,) = await dead(board)
            assert ("failed", f"no {n}", 1) == (letter.reason, letter.error, letter.attempts)
            await board.redrive()
            state = await board.get("a")
            assert state is not None
            assert (Status.READY, 0, 0, None) == (
                state.status,
                state.attempts,
                state.crashes,
                state.error,
            )


@pytest.mark.serial
async def test_redriving_wakes_claimers(place: Place) -> None:
    """Waiting claimers claim at once, not at their next poll."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        await board.cancel("a")
        found: list[Claim[Any]] = []
        with board.claims().subscribe(found.append):
            await asyncio.sleep(0.1)
            await bench.elsewhere().redrive()
            await until(lambda: found, 0.8)
            await board.settle([found[0].done()])
