"""The order in which tasks are claimed."""

from __future__ import annotations

from rxdispatch.task import Task
from tests.boards.places import Place, order


async def test_order_of_submission(place: Place) -> None:
    """Tasks are claimed in the order of submission, within a call and across calls."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "zebra"])
        await board.submit(Task(0, id="0"))
        await bench.elsewhere().submit([Task(0, id=i) for i in "yc"])
        assert [*"zebra0yc"] == await order(board)


async def test_higher_priorities_first(place: Place) -> None:
    """Tasks come by priority, from 4096 down to -4096, and within one by submission."""
    async with place.bench() as bench:
        board = bench.board()
        priorities = [0, -4096, 4096, 1, -1, 0, 4096, 4095, -4096, -4095]
        await board.submit([Task(0, id=f"{n}", priority=p) for n, p in enumerate(priorities)])
        assert ["2", "6", "7", "3", "0", "5", "4", "9", "1", "8"] == await order(board)


async def test_priorities_in_small_claims(place: Place) -> None:
    """Claims of one task keep the order when better tasks come in between."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="low"), Task(0, id="high", priority=5)])
        found: list[str] = []
        found += [c.task.id for c in await board.claim(1)]
        await board.submit(Task(0, id="higher", priority=6))
        for _ in range(3):
            found += [c.task.id for c in await board.claim(1)]
        assert ["high", "higher", "low"] == found


async def test_released_tasks_keep_their_place(place: Place) -> None:
    """Released tasks keep their place, however often and in whatever order they are released."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abcde"])
        claims = await board.claim(4)
        await board.submit([Task(0, id=i) for i in "fg"])
        await board.settle([claims[2].release(), claims[0].release()])
        await board.settle([claims[3].release()])
        assert [*"acdefg"] == await order(board)
        await board.settle([claims[1].release()])
        assert [*"abcdefg"] == await order(board)


async def test_released_with_a_delay_keep_their_place(place: Place) -> None:
    """After the delay, the tasks are at the place that they had."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abc"])
        first, _ = await board.claim(2, lease=300.0)
        await board.settle([first.release(20.0)])
        assert ["c"] == await order(board)
        await bench.later(40)
        assert ["a", "c"] == await order(board)


async def test_reclaimed_tasks_keep_their_place(place: Place) -> None:
    """Tasks whose lease lapsed are at the place that they had."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abcd"])
        await board.claim(2, lease=10.0)
        await bench.later(30)
        assert [*"abcd"] == await order(board)


async def test_retried_tasks_join_the_end(place: Place) -> None:
    """A retried task joins the end of its priority."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abc"])
        await board.submit([Task(0, id=i, priority=1) for i in "xyz"])
        claims = {claim.task.id: claim for claim in await board.claim(6)}
        await board.settle([claims[i].release() for i in "bcyz"])
        await board.settle([claims["x"].retry("no"), claims["a"].retry("no")])
        assert [*"yzxbca"] == await order(board)
        await board.submit([Task(0, id="d"), Task(0, id="w", priority=1)])
        assert [*"yzxwbcad"] == await order(board)


async def test_retried_after_a_delay_join_the_end(place: Place) -> None:
    """After its delay, the task joins the end as it is then."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a"), Task(0, id="b"), Task(0, id="x", priority=-1)])
        claim = (await board.claim(1))[0]
        await board.settle([claim.retry("no", delay=20.0)])
        await board.submit(Task(0, id="c"))
        assert ["b", "c", "x"] == await order(board)
        await bench.later(40)
        assert ["b", "c", "a", "x"] == await order(board)
        await board.submit(Task(0, id="d"))
        assert ["b", "c", "a", "d", "x"] == await order(board)


async def test_delayed_tasks_stand_where_they_were_submitted(place: Place) -> None:
    """A delayed task that is due comes before tasks that were submitted after it."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a", delay=20.0), Task(0, id="b")])
        assert ["b"] == await order(board)
        await bench.later(40)
        assert ["a", "b"] == await order(board)


async def test_redriven_tasks_join_the_end(place: Place) -> None:
    """Redriven tasks join the end of their priority in the order of their deaths."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abc"])
        await board.submit([Task(0, id="x", priority=1)])
        claims = {claim.task.id: claim for claim in await board.claim(4)}
        await board.settle([claims["c"].release()])
        await board.settle([claims["b"].dead("no")])
        await board.settle([claims["x"].dead("no")])
        await board.settle([claims["a"].dead("no")])
        await board.redrive()
        assert [*"xcba"] == await order(board)


async def test_claimed_by_id_and_released(place: Place) -> None:
    """A task that was claimed from the middle by its id goes back to the middle, once."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abcde"])
        for _ in range(3):
            claims = await board.claim(5, ids=["d", "b"])
            assert ["d", "b"] == [claim.task.id for claim in claims]
            assert [*"ace"] == await order(board)
            await board.settle([claim.release() for claim in claims])
        assert [*"abcde"] == await order(board)


async def test_picked_and_retried(place: Place) -> None:
    """A task that was claimed from the middle and failed is at the end only."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abc"])
        (claim,) = await board.claim(1, ids=["b"])
        await board.settle([claim.retry("no")])
        assert [*"acb"] == await order(board)
        await board.cancel("c")
        await board.redrive("c")
        assert [*"abc"] == await order(board)
