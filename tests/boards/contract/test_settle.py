"""Settling: each way to end a claim, once."""

from __future__ import annotations

import asyncio
from typing import Any

from rxdispatch.claim import Claim, Settlement
from rxdispatch.errors import TaskExecutionError
from rxdispatch.task import Status, Task
from tests.boards.places import Bench, Place, counts


async def claimed(bench: Bench, *ids: str, **options: Any) -> list[Claim[Any]]:
    """Submit and claim tasks with the ids *ids*."""
    board = bench.board()
    await board.submit([Task(0, id=i, **options) for i in ids])
    return await board.claim(len(ids), ids=ids)


async def test_done(place: Place) -> None:
    """The task is removed and counted."""
    async with place.bench() as bench:
        (claim,) = await claimed(bench, "a")
        assert [True] == await bench.board().settle([claim.done()])
        assert (0, 0, 0, 1, 0) == await counts(bench.board())
        assert await bench.board().get("a") is None


async def test_one_settlement(place: Place) -> None:
    """A single settlement needs no list."""
    async with place.bench() as bench:
        (claim,) = await claimed(bench, "a")
        assert [True] == await bench.board().settle(claim.done())


async def test_nothing(place: Place) -> None:
    """An empty list is allowed."""
    async with place.bench() as bench:
        assert [] == await bench.board().settle([])


async def test_retry(place: Place) -> None:
    """The task is ready again, with one attempt more and its error."""
    async with place.bench() as bench:
        board = bench.board()
        (claim,) = await claimed(bench, "a")
        assert [True] == await board.settle([claim.retry(ValueError("bad"))])
        state = await board.get("a")
        assert state is not None
        assert (Status.READY, 1, 0, None, "ValueError: bad") == (
            state.status,
            state.attempts,
            state.crashes,
            state.worker,
            state.error,
        )
        (claim,) = await board.claim(1)
        assert 2 == claim.attempt


async def test_retry_with_a_delay(place: Place) -> None:
    """The task is scheduled until the delay is over."""
    async with place.bench() as bench:
        board = bench.board()
        (claim,) = await claimed(bench, "a")
        await board.settle([claim.retry("no", delay=20.0)])
        assert (1, 0, 0, 0, 0) == await counts(board)
        state = await board.get("a")
        assert state is not None
        assert (Status.SCHEDULED, 1, "no") == (state.status, state.attempts, state.error)
        assert [] == await board.claim(1)
        await bench.later(25)
        (claim,) = await board.claim(1)
        assert 2 == claim.attempt


async def test_max_attempts(place: Place) -> None:
    """After ``max_attempts`` attempts, the task is dead, ``failed``."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", max_attempts=3))
        for attempt in (1, 2, 3):
            assert (0, 1, 0, 0, 0) == await counts(board)
            (claim,) = await board.claim(1)
            assert attempt == claim.attempt
            assert [True] == await board.settle([claim.retry(f"no {attempt}", delay=0.0)])
        assert (0, 0, 0, 0, 1) == await counts(board)
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("failed", "no 3", 3) == (letter.reason, letter.error, letter.attempts)


async def test_one_attempt(place: Place) -> None:
    """With ``max_attempts=1`` the first failure is the last, whatever the delay."""
    async with place.bench() as bench:
        (claim,) = await claimed(bench, "a", max_attempts=1)
        assert [True] == await bench.board().settle([claim.retry("no", delay=9.0)])
        assert (0, 0, 0, 0, 1) == await counts(bench.board())


async def test_dead(place: Place) -> None:
    """The task is not tried again, whatever its ``max_attempts``."""
    async with place.bench() as bench:
        board = bench.board()
        (claim,) = await claimed(bench, "a", max_attempts=9)
        assert [True] == await board.settle([claim.dead("unfit", KeyError("k"))])
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("unfit", "KeyError: 'k'", 1) == (letter.reason, letter.error, letter.attempts)
        state = await board.get("a")
        assert state is not None
        assert (Status.DEAD, 1, "KeyError: 'k'") == (state.status, state.attempts, state.error)


async def test_release(place: Place) -> None:
    """A release counts neither as an attempt nor as a crash."""
    async with place.bench() as bench:
        board = bench.board()
        for _ in range(4):
            (claim,) = await claimed(bench, "a", max_attempts=1)
            assert 1 == claim.attempt
            assert [True] == await board.settle([claim.release()])
        state = await board.get("a")
        assert state is not None
        assert (Status.READY, 0, 0, None) == (
            state.status,
            state.attempts,
            state.crashes,
            state.error,
        )


async def test_release_with_a_delay(place: Place) -> None:
    """The task is scheduled, and nothing is counted."""
    async with place.bench() as bench:
        board = bench.board()
        (claim,) = await claimed(bench, "a")
        await board.settle([claim.release(20.0)])
        assert (1, 0, 0, 0, 0) == await counts(board)
        await bench.later(25)
        (claim,) = await board.claim(1)
        assert (1, 0) == (claim.attempt, claim.crashes)


async def test_a_mixture(place: Place) -> None:
    """The answers are in the order of the settlements."""
    async with place.bench() as bench:
        board = bench.board()
        claims = await claimed(bench, *"abcdefgh")
        await board.cancel(["b", "e", "g"])
        ends = [
            claims[0].release(),
            claims[1].done(),
            claims[2].done(),
            claims[3].dead("no"),
            claims[4].retry("no"),
            claims[5].retry("no", delay=9.0),
            claims[6].release(),
            claims[7].done(),
        ]
        expected = [True, False, True, True, False, True, False, True]
        assert expected == await board.settle(ends)
        assert (1, 1, 0, 2, 4) == await counts(board)
        assert expected == await board.settle(ends)
        assert (1, 1, 0, 2, 4) == await counts(board)


async def test_more_than_one_chunk(place: Place) -> None:
    """2,500 settlements of two kinds are written."""
    async with place.bench() as bench:
        board = bench.board()
        claims = await claimed(bench, *(f"{n}" for n in range(2500)))
        ends = [c.done() if n % 2 else c.dead("odd") for n, c in enumerate(claims)]
        assert [True] * 2500 == await board.settle(ends)
        assert (0, 0, 0, 1250, 1250) == await counts(board)


async def test_the_same_answer_when_repeated(place: Place) -> None:
    """The same settlement, or an equal one of the same claim, gets the same answer."""
    async with place.bench() as bench:
        board = bench.board()
        one, two, three, four = await claimed(bench, *"abcd")
        first = [one.done(), two.retry("no"), three.dead("no"), four.release()]
        assert [True] * 4 == await board.settle(first)
        assert [True] * 4 == await board.settle(first)
        again = [one.done(), two.retry("again"), three.dead("again"), four.release(1.0)]
        assert [True] * 4 == await board.settle(again)
        assert (0, 2, 0, 1, 1) == await counts(board)
        assert [True] * 4 == await bench.elsewhere().settle(again)


async def test_another_verb_is_refused(place: Place) -> None:
    """A claim ends in one way; a later settlement of another kind is False and changes nothing."""
    async with place.bench() as bench:
        board = bench.board()
        (claim,) = await claimed(bench, "a")
        assert [True] == await board.settle([claim.release()])
        others = [claim.done(), claim.retry("no"), claim.dead("no")]
        assert [False] * 3 == await board.settle(others)
        assert (0, 1, 0, 0, 0) == await counts(board)


async def test_a_claim_twice_in_one_call(place: Place) -> None:
    """The first settlement counts; an equal one is True as well, a different one is False."""
    async with place.bench() as bench:
        board = bench.board()
        one, two = await claimed(bench, "a", "b")
        ends = [one.done(), two.retry("no"), one.done(), two.done(), one.dead("no")]
        assert [True, True, True, False, False] == await board.settle(ends)
        assert (0, 1, 0, 1, 0) == await counts(board)


async def test_one_settlement_at_once_from_two_sides(place: Place) -> None:
    """Both calls answer True, and the task is counted once."""
    async with place.bench() as bench:
        board = bench.board()
        (claim,) = await claimed(bench, "a")
        ends: list[Settlement] = [claim.done(), claim.done()]
        answers = await asyncio.gather(*(board.settle([end]) for end in ends))
        assert [[True], [True]] == answers
        assert (0, 0, 0, 1, 0) == await counts(board)


async def test_two_verbs_at_once(place: Place) -> None:
    """Exactly one of the two answers is True, and that settlement is written."""
    async with place.bench() as bench:
        board = bench.board()
        (claim,) = await claimed(bench, "a")
        done, dead = await asyncio.gather(
            board.settle([claim.done()]), board.settle([claim.dead("no")])
        )
        assert done != dead
        assert (0, 0, 0, int(done[0]), int(dead[0])) == await counts(board)


async def test_a_settled_claim_is_not_lost(place: Place) -> None:
    """The claim is not lost, even when its lease would be over."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1, lease=0.05)
        await board.settle([claim.done()])
        await asyncio.sleep(0.06)
        assert not claim.lost


async def test_errors_are_kept_as_text(place: Place) -> None:
    """The type and the message of the cause are kept; a long text is cut."""
    async with place.bench() as bench:
        board = bench.board()
        wrapped = TaskExecutionError("a", 1)
        wrapped.__cause__ = OSError("disk\udcff")
        ends: list[tuple[BaseException | str, str]] = [
            (wrapped, "OSError: disk\ufffd"),
            ("x" * 5000, "x" * 2000),
            ("nul \x00 and ü", "nul \x00 and ü"),
            ("", ""),
        ]
        claims = await claimed(bench, *"abcd")
        await board.settle(c.dead("no", e) for c, (e, _) in zip(claims, ends, strict=True))
        letters = [letter async for letter in board.dead_letters()]
        assert [expected for _, expected in ends] == [letter.error for letter in letters]


async def test_reasons_are_kept_as_text(place: Place) -> None:
    """A reason is kept unchanged, cut if it is long, and never mixed with the error."""
    async with place.bench() as bench:
        board = bench.board()
        claims = await claimed(bench, *"abcd")
        reasons = ["ü\x00 and \n", "r" * 70_000, "lone \udcff", "."]
        await board.settle(
            claim.dead(reason, "the error") for claim, reason in zip(claims, reasons, strict=True)
        )
        letters = [letter async for letter in board.dead_letters()]
        assert ["the error"] * 4 == [letter.error for letter in letters]
        assert ["ü\x00 and \n", "r" * 200, "lone \ufffd", "."] == [x.reason for x in letters]
