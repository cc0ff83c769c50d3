"""Tasks whose outcomes never reach their board, and outcomes that cannot be written."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch import operators as ops
from rxdispatch.claim import Claim
from rxdispatch.errors import ConfigError
from rxdispatch.streams import run
from rxdispatch.task import Task
from tests.boards.places import Place, counts, until


def is_a(claim: Claim[Any]) -> bool:
    """Return whether the task of *claim* is a."""
    return claim.task.id == "a"


def dropped(logs: list[Any]) -> bool:
    """Return whether a claim was reported as dropped."""
    return "claims_dropped" in events(logs)


def events(logs: list[Any]) -> set[str]:
    """Return the names of the log entries."""
    return {entry["event"] for entry in logs}


async def test_outcomes_that_are_dropped_come_to_an_end(place: Place) -> None:
    """Each run counts as a crash, except if the claim was dropped before its handler began."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=2)
        await board.submit([Task("dropped", id="a"), Task("filtered", id="b")])
        ran: list[str] = []

        async def handle(task: Task[Any]) -> None:
            ran.append(task.id)

        for round_ in range(5):
            with capture_logs() as logs:
                await run(
                    board.claims(until="idle", lease=10.0).pipe(
                        rx.filter(is_a),
                        ops.execute(handle),
                        rx.filter(lambda _: False),
                        ops.settle(board),
                    )
                )
                await until(partial(dropped, logs))
                await board._intakes.finished()
                assert (round_ < 3) == ("outcomes_dropped" in events(logs))
                await bench.later(20)
        await board.claim(0)
        assert ["a"] * 3 == ran
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("a", "crashed", 0, 3) == (
            letter.task.id,
            letter.reason,
            letter.attempts,
            letter.crashes,
        )
        state = await board.get("b")
        assert state is not None
        assert (0, 0) == (state.attempts - (state.worker is not None), state.crashes)


def spoiled(**changes: Any) -> Any:
    """Return a function that sets these attributes of an outcome and returns it."""

    def change(outcome: Any) -> Any:
        for name, value in changes.items():
            setattr(outcome, name, value)
        return outcome

    return change


def forgets(outcome: Any) -> None:
    """Return None, like a function without its last line."""
    del outcome


def claims(outcome: Any) -> Any:
    """Return the claim."""
    return outcome.claim


def settles(outcome: Any) -> Any:
    """Return the settlement."""
    return outcome.claim.done()


def wraps(outcome: Any) -> Any:
    """Return a mapping instead of the outcome."""
    del outcome
    return {"secret": 1}


@pytest.mark.parametrize(
    ("judge", "message"),
    [
        (forgets, "settle must be given outcomes, got NoneType; does a function above"),
        (claims, "settle must be given outcomes, got Claim; put execute above it"),
        (settles, "settle must be given outcomes, got Settlement; pass settlements to"),
        (wraps, "settle must be given outcomes, got dict"),
        (
            spoiled(status="finished"),
            "outcome.status must be one of done, retry, dead, released, lost, got 'finished'",
        ),
        (spoiled(status=[]), "outcome.status must be one of"),
        (spoiled(status="retry", delay=float("nan")), "outcome.delay must be a finite number"),
        (spoiled(status="retry", delay=-1), "outcome.delay must be a finite number"),
        (spoiled(status="dead", reason=5), "outcome.reason must be a str, got 5"),
        (spoiled(status="dead", error=5), "outcome.error must be an exception or None"),
    ],
)
async def test_what_is_no_outcome_ends_the_stream(place: Place, judge: Any, message: str) -> None:
    """The error names the problem; the board is unchanged, and the lease lapses."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))

        async def handle(task: Task[Any]) -> None:
            del task

        with capture_logs(), pytest.raises(ConfigError) as caught:
            await run(
                board.claims(lease=10.0).pipe(ops.execute(handle), rx.map(judge), ops.settle(board))
            )
        assert message in str(caught.value)
        assert "secret" not in str(caught.value)
        assert 0 == (await counts(board))[3]


async def test_settle_without_execute_says_so(place: Place) -> None:
    """The error names ``execute``, and the tasks are given back and claimed again."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        with capture_logs(), pytest.raises(ConfigError, match="got Claim; put execute above it"):
            await run(board.claims().pipe(ops.settle(board)))  # type: ignore[arg-type]


async def test_an_outcome_of_another_board_ends_the_stream(place: Place) -> None:
    """The error names both boards."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.another("other")
        await board.submit(Task(0, id="a"))

        async def handle(task: Task[Any]) -> None:
            del task

        with capture_logs(), pytest.raises(ConfigError) as caught:
            await run(board.claims().pipe(ops.execute(handle), ops.settle(other)))
        assert f"settle must be given outcomes of board {other.name!r}" in str(caught.value)
