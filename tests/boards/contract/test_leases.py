"""Leases: how they hold a task, and what happens when they lapse."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from rxdispatch.claim import Claim
from rxdispatch.task import Task
from tests.boards.places import Place, counts


async def test_a_lapsed_task_is_claimed_again(place: Place) -> None:
    """Any handle can claim the task, and the old claim can no longer settle."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        await board.submit(Task(0, id="a"))
        (old,) = await board.claim(1, lease=10.0)
        assert [] == await other.claim(1)
        await bench.later(20)
        (new,) = await other.claim(1)
        assert new.token > old.token
        assert [False] == await board.settle([old.done()])
        assert [True] == await other.settle([new.done()])
        assert (0, 0, 0, 1, 0) == await counts(board)


@pytest.mark.serial
async def test_real_time_counts(place: Place) -> None:
    """A lease of 300 ms is over after 350 ms, for the board and for the claim."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (old,) = await board.claim(1, lease=0.3)
        (none,) = [await bench.elsewhere().claim(1)]
        await asyncio.sleep(0.35)
        assert [] == none
        assert old.lost
        (new,) = await bench.elsewhere().claim(1)
        assert not new.lost
        assert [False] == await board.settle([old.done()])


@pytest.mark.parametrize("kind", ["done", "retry", "dead", "release"])
async def test_a_stale_claim_settles_nothing(place: Place, kind: str) -> None:
    """The settlements of a stale claim are refused, and do not affect the new one."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a"), Task(0, id="b")])
        (old,) = await board.claim(1, lease=10.0)
        await bench.later(20)
        (new,) = await bench.elsewhere().claim(1)
        end = {
            "done": old.done(),
            "retry": old.retry("no"),
            "dead": old.dead("no"),
            "release": old.release(),
        }[kind]
        assert [False] == await board.settle([end])
        assert [False] == await board.settle([end])
        assert (0, 1, 1, 0, 0) == await counts(board)
        assert [] == await bench.elsewhere().renew([new], 30.0)


async def test_a_token_holds_until_somebody_sweeps(place: Place) -> None:
    """A claim whose lease has lapsed can still be settled or renewed until a sweep."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a"), Task(0, id="b")])
        one, two = await board.claim(2, lease=10.0)
        await bench.later(20)
        assert [True] == await board.settle([one.done()])
        assert [] == await board.renew([two], 30.0)
        assert [] == await bench.elsewhere().claim(5)
        assert [True] == await board.settle([two.done()])


async def test_renewal_extends(place: Place) -> None:
    """The new lease counts from the renewal, not from the end of the old one."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1, lease=10.0)
        for _ in range(3):
            await bench.later(7)
            assert [] == await board.renew([claim], 10.0)
            assert [] == await bench.elsewhere().claim(1)
        await bench.later(13)
        assert ["a"] == [c.task.id for c in await bench.elsewhere().claim(1)]


async def test_renewal_takes_a_timedelta(place: Place) -> None:
    """The lease may be given as a timedelta."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        duration: Any = timedelta(seconds=100)
        (claim,) = await board.claim(1, lease=duration)
        assert [] == await board.renew([claim], duration)
        await bench.later(60)
        assert [] == await board.claim(1)


async def test_renewal_names_the_lost(place: Place) -> None:
    """Claims that were taken over or cancelled are lost; settled ones are not."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abcd"])
        (taken,) = await board.claim(1, lease=10.0)
        await bench.later(20)
        await bench.elsewhere().claim(1)
        cancelled, settled, held = await board.claim(3)
        await bench.elsewhere().cancel(["b"])
        await board.settle([settled.done()])
        assert not cancelled.lost
        lost = await board.renew([taken, held, cancelled, settled], 30.0)
        assert [taken, cancelled, settled] == lost
        expected = [True, True, False, False]
        assert expected == [c.lost for c in (taken, cancelled, held, settled)]


async def test_renewal_of_none(place: Place) -> None:
    """Renewing an empty list returns an empty list."""
    async with place.bench() as bench:
        assert [] == await bench.board().renew([], 30.0)


async def test_renewal_of_many(place: Place) -> None:
    """More claims than fit one chunk are renewed."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0) for _ in range(2100)])
        claims = await board.claim(2100)
        await board.cancel([claims[n].task.id for n in (0, 1500, 2099)])
        assert [claims[n] for n in (0, 1500, 2099)] == await board.renew(claims, 30.0)


@pytest.mark.serial
async def test_a_live_claimer_takes_over(place: Place) -> None:
    """A waiting claimer has the task within 2 s after the end of the lease."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        await board.claim(1, lease=0.1)
        found: list[Claim[Any]] = []
        with bench.elsewhere().claims().subscribe(found.append):
            async with asyncio.timeout(0.1 + 2.0):
                while not found:
                    await asyncio.sleep(0.02)
        await bench.elsewhere().settle([found[0].done()])
        assert 1 == found[0].crashes


@pytest.mark.serial
async def test_join_takes_over_too(place: Place) -> None:
    """A process that waits in ``join`` sweeps, so that an idle worker gets the task."""
    async with place.bench() as bench:
        board = bench.board(max_crashes=0)
        await board.submit(Task(0, id="a"))
        await board.claim(1, lease=0.1)
        async with asyncio.timeout(0.1 + 2.0):
            await bench.elsewhere().join()
        assert (0, 0, 0, 0, 1) == await counts(board)


async def test_many_lapse_at_once(place: Place) -> None:
    """If more leases lapse than one sweep takes, one claim still makes all tasks ready."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=f"{n}") for n in range(1200)])
        await board.claim(1200, lease=10.0)
        await bench.later(20)
        elsewhere = bench.elsewhere()
        assert ["0", "1", "2", "3"] == [c.task.id for c in await elsewhere.claim(5000)]
        assert (0, 1196, 4, 0, 0) == await counts(board)
        found = [await elsewhere.claim(5000, worker=f"w{n}") for n in range(299)]
        assert [f"{n}" for n in range(4, 1200)] == [c.task.id for some in found for c in some]


async def test_a_renewal_that_overtakes_a_settlement(place: Place) -> None:
    """The renewal finds the token gone, but the claim is not lost."""
    async with place.bench() as bench:
        board = bench.board()
        for rounds in range(5):
            await board.submit(Task(0))
            (claim,) = await board.claim(1)
            settling = asyncio.create_task(board.settle([claim.done()]))
            for _ in range(rounds):
                await asyncio.sleep(0)
            await board.renew([claim], 30.0)
            assert [True] == await settling
            assert not claim.lost
        assert (0, 0, 0, 5, 0) == await counts(board)
