"""Workers that die are counted apart from attempts that fail."""

from __future__ import annotations

import pytest

from rxdispatch.task import Task
from tests.boards.places import Bench, Place, counts


async def crash(bench: Bench, times: int) -> None:
    """Claim and let the lease lapse, *times* times."""
    board = bench.board()
    for _ in range(times):
        assert 1 == len(await board.claim(1, lease=10.0))
        await bench.later(20)


async def test_a_crash_is_no_attempt(place: Place) -> None:
    """The next claim is still the first attempt, and has the number of crashes."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", max_attempts=1))
        await crash(bench, 3)
        (claim,) = await board.claim(1)
        assert (1, 3) == (claim.attempt, claim.crashes)
        state = await board.get("a")
        assert state is not None
        assert (1, 3) == (state.attempts, state.crashes)
        assert [True] == await board.settle([claim.done()])


@pytest.mark.parametrize("limit", [0, 1, 3])
async def test_more_crashes_than_allowed(place: Place, limit: int) -> None:
    """After more crashes than ``max_crashes``, the task is dead, ``crashed``."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=limit)
        await board.submit(Task(0, id="a"))
        await crash(bench, limit)
        assert 1 == len(await board.claim(1, lease=10.0))
        await bench.later(20)
        assert [] == await bench.elsewhere().claim(1)
        assert (0, 0, 0, 0, 1) == await counts(board)
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("crashed", 0, limit + 1) == (letter.reason, letter.attempts, letter.crashes)


async def test_three_crashes_are_allowed_by_default(place: Place) -> None:
    """The fourth crash kills the task."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        await crash(bench, 4)
        assert [] == await board.claim(1)
        assert (0, 0, 0, 0, 1) == await counts(board)


async def test_crashes_and_attempts_add_up_apart(place: Place) -> None:
    """Neither count resets the other, and a release counts as neither."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        await crash(bench, 1)
        (claim,) = await board.claim(1)
        await board.settle([claim.retry("no")])
        await crash(bench, 1)
        (claim,) = await board.claim(1)
        await board.settle([claim.release()])
        (claim,) = await board.claim(1)
        assert (2, 2) == (claim.attempt, claim.crashes)
        await board.settle([claim.dead("enough", "last words")])
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("enough", "last words", 2, 2) == (
            letter.reason,
            letter.error,
            letter.attempts,
            letter.crashes,
        )


async def test_a_crash_keeps_the_last_error(place: Place) -> None:
    """The error of the last attempt is kept when the worker of the next one dies."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=0)
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        await board.settle([claim.retry(ValueError("x"))])
        assert 1 == len(await board.claim(1, lease=10.0))
        await bench.later(20)
        await board.claim(0)
        state = await board.get("a")
        assert state is not None
        assert ("ValueError: x", 1, 1) == (state.error, state.attempts, state.crashes)
