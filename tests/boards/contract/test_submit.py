"""Submitting: batches, and which ids are duplicates."""

from __future__ import annotations

import asyncio

from rxdispatch.results import SubmitResult
from rxdispatch.task import Status, Task
from tests.boards.places import Place, counts


async def test_one_task(place: Place) -> None:
    """A single task needs no list."""
    async with place.bench() as bench:
        board = bench.board()
        assert SubmitResult(("a",), ()) == await board.submit(Task(1, id="a"))
        assert (0, 1, 0, 0, 0) == await counts(board)


async def test_nothing(place: Place) -> None:
    """An empty list is allowed."""
    async with place.bench() as bench:
        board = bench.board()
        assert SubmitResult((), ()) == await board.submit([])
        assert (0, 0, 0, 0, 0) == await counts(board)


async def test_a_batch_from_a_generator(place: Place) -> None:
    """The ids come back in the order given."""
    async with place.bench() as bench:
        board = bench.board()
        result = await board.submit(Task(n, id=f"{n}") for n in range(5))
        assert SubmitResult(("0", "1", "2", "3", "4"), ()) == result


async def test_more_than_one_chunk(place: Place) -> None:
    """2,500 tasks are three atomic steps, and one call."""
    async with place.bench() as bench:
        board = bench.board()
        ids = tuple(f"t{n}" for n in range(2500))
        assert SubmitResult(ids, ()) == await board.submit([Task(i, id=i) for i in ids])
        assert (0, 2500, 0, 0, 0) == await counts(board)
        claims = await board.claim(5000)
        assert list(ids) == [claim.task.id for claim in claims]
        assert [True] * 2500 == await board.settle(claim.done() for claim in claims)
        assert (0, 0, 0, 2500, 0) == await counts(board)


async def test_a_task_comes_back_as_it_went(place: Place) -> None:
    """Every field of the task is kept."""
    sent = Task(
        {"a": [1, 2.5, None, True, b"\x00\xff", "ü"]},
        id="x",
        kind="parse",
        priority=-7,
        ttl=60.0,
        timeout=1.5,
        max_attempts=2,
        headers={"trace": "1-2"},
    )
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(sent)
        (claim,) = await board.claim(1)
        assert sent == claim.task
        assert 1 == claim.attempt


async def test_known_ids_are_duplicates(place: Place) -> None:
    """Ids of scheduled, ready, claimed and dead tasks are duplicates and change nothing."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(1, id="claimed", priority=2), Task(1, id="dead", priority=2)])
        first, second = await board.claim(2)
        await board.settle([second.dead("no")])
        await board.submit([Task(1, id="later", delay=100.0), Task(1, id="ready")])
        ids = ("claimed", "dead", "later", "ready")
        again = [Task(2, id=i, priority=9) for i in ids]
        assert SubmitResult((), ids) == await board.submit(again)
        assert (1, 1, 1, 0, 1) == await counts(board)
        assert [True] == await board.settle([first.done()])
        (claim,) = await board.claim(5)
        assert (1, 0) == (claim.task.payload, claim.task.priority)


async def test_duplicates_within_one_call(place: Place) -> None:
    """The first task with an id is accepted, the others are duplicates."""
    async with place.bench() as bench:
        board = bench.board()
        result = await board.submit([Task(1, id="a"), Task(2, id="b"), Task(3, id="a", delay=9.0)])
        assert SubmitResult(("a", "b"), ("a",)) == result
        assert [1, 2] == [claim.task.payload for claim in await board.claim(5)]
        assert (0, 0, 2, 0, 0) == await counts(board)


async def test_duplicates_across_chunks(place: Place) -> None:
    """In 1,500 tasks, the second half repeats ids of the first."""
    async with place.bench() as bench:
        board = bench.board()
        result = await board.submit([Task(n, id=f"{n % 1000}") for n in range(1500)])
        assert (1000, 500) == (len(result.accepted), len(result.duplicates))
        assert (0, 1000, 0, 0, 0) == await counts(board)


async def test_duplicates_of_another_handle(place: Place) -> None:
    """Ids are unique on the board, not only per handle."""
    async with place.bench() as bench:
        await bench.board().submit(Task(1, id="a"))
        assert SubmitResult((), ("a",)) == await bench.elsewhere().submit(Task(2, id="a"))


async def test_done_ids_may_come_again(place: Place) -> None:
    """Ids of done tasks may be submitted again with other fields, and start with no attempts."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(1, id="a", max_attempts=9))
        (claim,) = await board.claim(1)
        await board.settle([claim.retry("no")])
        (claim,) = await board.claim(1)
        assert 2 == claim.attempt
        await board.settle([claim.done()])
        assert await board.get("a") is None
        assert SubmitResult(("a",), ()) == await board.submit(Task(2, id="a"))
        (claim,) = await board.claim(1)
        assert (2, 1) == (claim.task.payload, claim.attempt)


async def test_remembered_ids_may_not(place: Place) -> None:
    """Within ``remember`` seconds, such ids are duplicates; afterwards they are new."""
    async with place.bench() as bench:
        board = bench.board(remember=30.0)
        await board.submit(Task(1, id="a"))
        (claim,) = await board.claim(1)
        await board.settle([claim.done()])
        assert SubmitResult((), ("a",)) == await board.submit(Task(2, id="a"))
        state = await board.get("a")
        assert state is not None
        assert Status.DONE is state.status
        assert (0, 0, 0, 1, 0) == await counts(board)
        await bench.later(35)
        assert await board.get("a") is None
        assert SubmitResult(("a",), ()) == await board.submit(Task(2, id="a"))


async def test_handles_submit_at_once(place: Place) -> None:
    """When two handles submit the same ids at once, each id is accepted once."""
    async with place.bench() as bench:
        one, two = bench.board(), bench.elsewhere()
        ids = [f"{n}" for n in range(300)]
        results = await asyncio.gather(
            *(board.submit([Task(n, id=n) for n in ids]) for board in (one, two, one, two))
        )
        accepted = [i for result in results for i in result.accepted]
        assert sorted(ids) == sorted(accepted)
        assert 900 == sum(len(result.duplicates) for result in results)


class Marked(Task[int]):
    """A user's subclass of Task."""


async def test_a_task_of_a_subclass(place: Place) -> None:
    """A task of a subclass is submitted like any task, alone or among others."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Marked(1, id="a"))
        await board.submit([Marked(2, id="b"), Task(3, id="c")])
        assert [Task(1, id="a"), Task(2, id="b"), Task(3, id="c")] == [
            claim.task for claim in await board.claim(5)
        ]
