"""Pausing a board, and waiting until all its tasks are finished."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rxdispatch.claim import Claim
from rxdispatch.task import Task
from tests.boards.places import Place, counts, until


async def test_a_paused_board_gives_nothing(place: Place) -> None:
    """No handle can claim, in order or by id; tasks can still be submitted."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        await board.submit(Task(0, id="a"))
        await board.pause()
        await board.submit(Task(0, id="b"))
        assert [] == await board.claim(5)
        assert [] == await other.claim(5)
        assert [] == await other.claim(5, ids=["a"])
        await other.resume()
        assert 2 == len(await board.claim(5))


async def test_pausing_twice(place: Place) -> None:
    """One resume ends two pauses, and another resume does no harm."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        await board.pause()
        await board.pause()
        await board.resume()
        await board.resume()
        assert 1 == len(await board.claim(5))


async def test_what_is_claimed_goes_on(place: Place) -> None:
    """A pause does not affect claims, which can be renewed and settled, nor sweeps."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abc"])
        one, two = await board.claim(2, lease=20.0)
        await board.submit(Task(0, id="later", delay=10.0))
        await board.pause()
        assert [] == await board.renew([one], 100.0)
        assert [True] == await board.settle([one.done()])
        await bench.later(30)
        assert [] == await board.claim(5)
        assert (0, 3, 0, 1, 0) == await counts(board)
        assert [False] == await board.settle([two.done()])


@pytest.mark.serial
async def test_resuming_wakes_claimers(place: Place) -> None:
    """Waiting claimers claim at once, not at their next poll."""
    async with place.bench() as bench:
        board = bench.board()
        await board.pause()
        await board.submit(Task(0, id="a"))
        found: list[Claim[Any]] = []
        with board.claims().subscribe(found.append):
            await asyncio.sleep(0.1)
            assert [] == found
            await bench.elsewhere().resume()
            await until(lambda: found, 0.8)
            await board.settle([found[0].done()])


async def test_join_of_an_empty_board(place: Place) -> None:
    """``join`` returns at once; dead tasks do not count."""
    async with place.bench() as bench:
        board = bench.board()
        await board.join()
        await board.submit(Task(0, id="a"))
        await board.cancel("a")
        await board.join()


async def test_join_waits_for_each_state(place: Place) -> None:
    """``join`` waits for ready, claimed and scheduled tasks."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        joined = asyncio.create_task(bench.elsewhere().join())
        await asyncio.sleep(0.05)
        assert not joined.done()
        (claim,) = await board.claim(1)
        await asyncio.sleep(0.05)
        assert not joined.done()
        await board.settle([claim.retry("no", delay=100.0)])
        await asyncio.sleep(0.05)
        assert not joined.done()
        await board.cancel("a")
        async with asyncio.timeout(1.0):
            await joined


@pytest.mark.serial
async def test_join_wakes_promptly(place: Place) -> None:
    """Every ``join`` that waits returns long before its next poll."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        late: list[float] = []
        for _ in range(3):
            await board.submit(Task(0))
            (claim,) = await board.claim(1)
            joined = [asyncio.create_task(handle.join()) for handle in (board, other)]
            await asyncio.sleep(0.1)
            before = asyncio.get_running_loop().time()
            await board.settle([claim.done()])
            await asyncio.gather(*joined)
            late.append(asyncio.get_running_loop().time() - before)
        # A noisy machine may delay one of three waits.
        assert sorted(late)[1] < 0.3


async def test_join_waits_through_a_pause(place: Place) -> None:
    """``join`` returns after the board has been resumed and all tasks are finished."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0))
        await board.pause()
        joined = asyncio.create_task(bench.elsewhere().join())
        with board.claims().subscribe(lambda claim: board._intakes.post([claim.done()])):
            await asyncio.sleep(0.2)
            assert not joined.done()
            await board.resume()
            async with asyncio.timeout(5.0):
                await joined
        assert (0, 0, 0, 1, 0) == await counts(board)


async def test_join_can_be_cancelled(place: Place) -> None:
    """A cancelled ``join`` leaves nothing behind."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0))
        joined = asyncio.create_task(board.join())
        await asyncio.sleep(0.02)
        joined.cancel()
        results = await asyncio.gather(joined, return_exceptions=True)
        assert isinstance(results[0], asyncio.CancelledError)
