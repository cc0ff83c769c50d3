"""A dead letter keeps the end of the traceback of the error that killed its task."""

from __future__ import annotations

from typing import Any

from rxdispatch.boards.base import Board
from rxdispatch.claim import Outcome
from rxdispatch.errors import TaskExecutionError
from rxdispatch.results import DeadLetter
from rxdispatch.task import Task
from tests.boards.places import Place


class HostileError(Exception):
    """An error whose own methods raise."""

    def __str__(self) -> str:
        raise KeyError("code")


def look_up() -> None:
    """Fail with a local variable in the frame."""
    number = int("2" * 2) * 10
    raise KeyError("order", str(number)[:0])


def failure() -> BaseException:
    """Return an error with a cause, a group and its parts, as a handler would raise it."""
    parts = ExceptionGroup("two failed", [ValueError("first part"), OSError("second part")])
    try:
        try:
            look_up()
        except KeyError:
            raise parts from RuntimeError("the cause")
    except ExceptionGroup as error:
        return error
    raise AssertionError


async def only_letter(board: Board[Any]) -> DeadLetter[Any]:
    """Return the only dead letter of a board."""
    (letter,) = [letter async for letter in board.dead_letters()]
    return letter


async def test_what_it_tells(place: Place) -> None:
    """The traceback has frames, causes and the parts of groups, but no values of variables."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        await board.settle(claim.dead("unfit", failure()))
        letter = await only_letter(bench.elsewhere())
        assert "ExceptionGroup: two failed (2 sub-exceptions)" == letter.error
        for text in ("in failure", "RuntimeError: the cause", "ValueError: first part", "OSError"):
            assert text in letter.traceback
        assert "220" not in letter.traceback
        state = await board.get("a")
        assert state is not None
        assert letter.error == state.error


async def test_the_last_attempt(place: Place) -> None:
    """A retry without an attempt left keeps its traceback; earlier attempts leave none."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", max_attempts=2))
        (claim,) = await board.claim(1)
        await board.settle(claim.retry(failure()))
        (claim,) = await board.claim(1)
        await board.settle(claim.retry(TaskExecutionError("a", 2)))
        letter = await only_letter(board)
        assert ("failed", 2) == (letter.reason, letter.attempts)
        assert "task 'a' failed at attempt 2" in letter.traceback
        assert "two failed" not in letter.traceback


async def test_outcomes(place: Place) -> None:
    """If an error wraps another one, the traceback of the wrapped error is kept."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        wrapped = TaskExecutionError("a", 1)
        wrapped.__cause__ = failure()
        outcome: Outcome[Any, Any] = Outcome(claim, "dead", error=wrapped, reason="bad input")
        settlement = outcome.settlement()
        assert settlement is not None
        await board.settle(settlement)
        letter = await only_letter(board)
        assert "bad input" == letter.reason
        assert "two failed" in letter.traceback
        assert "TaskExecutionError" not in letter.traceback


async def test_a_retry_that_comes_too_late(place: Place) -> None:
    """A retry after the ttl makes the task dead, and keeps the traceback of the attempt."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", ttl=20.0))
        (claim,) = await board.claim(1, lease=90.0)
        await bench.later(30)
        await board.settle(claim.retry(failure()))
        letter = await only_letter(board)
        assert "expired" == letter.reason
        assert "two failed" in letter.error
        assert "first part" in letter.traceback


async def test_deaths_without_an_error(place: Place) -> None:
    """Without an error there is no traceback, even if an earlier attempt of the task had one."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=0)
        await board.submit([Task(0, id=i, ttl=1000.0) for i in ("told", "crashed", "cancelled")])
        claims = await board.claim(3)
        await board.settle(claims[0].dead("unfit", "only words"))
        await board.settle(claim.retry(failure()) for claim in claims[1:])
        await board.cancel("cancelled")
        await board.claim(1, lease=10.0)
        await bench.later(20)
        await board.claim(0)
        letters = {letter.task.id: letter async for letter in board.dead_letters()}
        assert {"told": "", "crashed": "", "cancelled": ""} == {
            task_id: letter.traceback for task_id, letter in letters.items()
        }
        assert "only words" == letters["told"].error
        assert "two failed" in letters["crashed"].error


async def test_redriven_tasks_begin_without_one(place: Place) -> None:
    """A redriven task has no traceback of its earlier death."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        await board.settle(claim.dead("unfit", failure()))
        await board.redrive("a")
        await board.cancel("a")
        letter = await only_letter(board)
        assert ("cancelled", "", "") == (letter.reason, letter.error, letter.traceback)


async def test_a_traceback_without_end(place: Place) -> None:
    """The last 8 KiB of a long traceback are kept; in shared memory, the last 2 KiB."""
    limit = 2048 if place.kind == "shm" else 8192
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        error = ExceptionGroup("many", [ValueError("ü" * 1000) for _ in range(10)])
        await board.settle(claim.dead("unfit", error))
        letter = await only_letter(board)
        assert limit - 10 <= len(letter.traceback.encode()) <= limit
        assert letter.traceback.startswith("...")
        assert "\ufffd" not in letter.traceback


async def test_errors_that_cannot_be_told(place: Place) -> None:
    """Errors with hostile methods and messages do no harm."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i, max_attempts=1) for i in "abc"])
        claims = await board.claim(3)
        await board.settle(
            [
                claims[0].retry(HostileError()),
                claims[1].dead("unfit", "before\x00behind"),
                claims[2].dead("unfit", ValueError("before\x00behind \ud800")),
            ]
        )
        hostile, words, error = [letter async for letter in board.dead_letters()]
        assert "HostileError: <no message: KeyError>" == hostile.error
        assert "HostileError" in hostile.traceback
        assert ("before\x00behind", "") == (words.error, words.traceback)
        assert "ValueError: before\x00behind \ufffd" == error.error
        assert "ValueError: before\x00behind \ufffd" == error.traceback
