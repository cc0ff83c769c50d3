"""Cancelling a task in any state makes it dead, ``cancelled``."""

from __future__ import annotations

from rxdispatch.task import Status, Task
from tests.boards.places import Place, counts, order


async def test_cancel_in_each_state(place: Place) -> None:
    """Scheduled, ready and claimed tasks can be cancelled; dead, done and unknown ones cannot."""
    async with place.bench() as bench:
        board = bench.board()
        ids = ["done", "dead", "held", "waiting"]
        await board.submit([Task(0, id=i) for i in ids])
        done, dead, held, waiting = await board.claim(4)
        await board.settle([done.done(), dead.dead("no"), waiting.retry("no", delay=9.0)])
        await board.submit([Task(0, id="ready"), Task(0, id="later", delay=9.0)])
        asked = ["done", "ready", "dead", "later", "held", "unknown", "waiting"]
        expected = [False, True, False, True, True, False, True]
        assert expected == await bench.elsewhere().cancel(asked)
        assert [False] * 7 == await board.cancel(asked)
        assert (0, 0, 0, 1, 5) == await counts(board)
        reasons = {x.task.id: (x.reason, x.attempts) async for x in board.dead_letters()}
        assert {
            "dead": ("no", 1),
            "ready": ("cancelled", 0),
            "later": ("cancelled", 0),
            "held": ("cancelled", 0),
            "waiting": ("cancelled", 1),
        } == reasons
        assert held.task.id == "held"


async def test_a_cancelled_claim_is_lost(place: Place) -> None:
    """A renewal reports the claim as lost, and it cannot be settled."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        assert [True] == await bench.elsewhere().cancel("a")
        assert [claim] == await board.renew([claim], 30.0)
        assert claim.lost
        assert [False] == await board.settle([claim.done()])
        assert (0, 0, 0, 0, 1) == await counts(board)


async def test_a_cancelled_task_is_not_claimed(place: Place) -> None:
    """A cancelled task is claimed neither now nor after its delay."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abc"])
        await board.submit(Task(0, id="d", delay=20.0))
        await board.cancel(["b", "d"])
        assert [*"ac"] == await order(board)
        await bench.later(25)
        assert [*"ac"] == await order(board)


async def test_one_id_and_the_same_id_twice(place: Place) -> None:
    """A single id needs no list, and a repeated id counts once."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a"), Task(0, id="b")])
        assert [True] == await board.cancel("a")
        assert [True, False] == await board.cancel(["b", "b"])
        assert [] == await board.cancel([])


async def test_cancel_many(place: Place) -> None:
    """More ids than fit one chunk are cancelled."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=f"{n}") for n in range(2100)])
        assert [True] * 2100 == await board.cancel(f"{n}" for n in range(2100))
        assert (0, 0, 0, 0, 2100) == await counts(board)


async def test_a_cancelled_id_is_known(place: Place) -> None:
    """The id is a duplicate, like that of any dead task, until the task is redriven and done."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        await board.cancel("a")
        assert ("a",) == (await board.submit(Task(0, id="a"))).duplicates
        state = await board.get("a")
        assert state is not None
        assert Status.DEAD is state.status
