"""How long the oldest ready task has waited."""

from __future__ import annotations

from rxdispatch.task import Task
from tests.boards.places import Place

# By how many seconds a sample may be off, including delays on a busy machine.
NEAR = 5.0


async def test_nothing_is_ready(place: Place) -> None:
    """The lag is 0 for an empty board, and if all tasks are claimed or scheduled."""
    async with place.bench() as bench:
        board = bench.board()
        assert 0.0 == await board.lag()
        await board.submit([Task(0), Task(0, delay=1000.0)])
        await board.claim(1)
        await bench.later(100)
        assert 0.0 == await board.lag()


async def test_it_grows_until_the_oldest_is_claimed(place: Place) -> None:
    """Every handle reports the lag of the first task, and later that of the next."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0))
        await bench.later(100)
        await board.submit(Task(1))
        await bench.later(20)
        assert 120.0 <= await bench.elsewhere().lag() < 120.0 + NEAR
        (claim,) = await board.claim(1)
        assert 20.0 <= await board.lag() < 20.0 + NEAR
        # The released task keeps its place.
        await board.settle(claim.release())
        assert 120.0 <= await board.lag() < 120.0 + NEAR


async def test_the_oldest_of_any_priority(place: Place) -> None:
    """A task behind more urgent ones counts, whatever the sign of its priority."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, priority=-4096))
        await bench.later(50)
        await board.submit([Task(0, priority=p) for p in (4096, 3, 0, -1) for _ in range(10)])
        assert 50.0 <= await board.lag() < 50.0 + NEAR


async def test_a_delay_does_not_count(place: Place) -> None:
    """A delayed task waits from its due time, and hides no task behind it."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task("x" * 50, delay=1000.0, ttl=9000.0), Task(0, delay=1000.0)])
        await bench.later(990)
        await board.submit(Task(0, id="plain"))
        await bench.later(60)
        await board.claim(0)
        assert 60.0 <= await board.lag() < 60.0 + NEAR
        assert [True] == await board.cancel("plain")
        assert 50.0 - 2.0 <= await board.lag() < 50.0 + NEAR


async def test_a_retry_counts_from_when_it_is_ready(place: Place) -> None:
    """Neither the delay of a retry nor the time as a dead letter counts."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", delay=0.0, kind="odd"))
        (claim,) = await board.claim(1)
        await board.settle(claim.retry("no", delay=500.0))
        await bench.later(501)
        await board.claim(0)
        await bench.later(30)
        assert 29.0 <= await board.lag() < 30.0 + NEAR
        await board.cancel("a")
        await bench.later(1000)
        await board.redrive()
        await bench.later(10)
        assert 10.0 <= await board.lag() < 10.0 + NEAR


async def test_a_long_history_takes_little_room(place: Place) -> None:
    """After a thousand samples, each age is exact to a third."""
    async with place.bench() as bench:
        board = bench.board()
        spans = [1 + step % 7 for step in range(300)]
        for n, span in enumerate(spans):
            await board.submit(Task(n, id=f"n{n}"))
            await bench.later(span)
        ages = [sum(spans[n:]) for n in range(300)]
        for n in range(0, 300, 20):
            lag = await board.lag()
            assert ages[n] <= lag + 1.0
            assert lag <= ages[n] * 1.34 + NEAR
            await board.claim(20)
        if bench.kind not in ("memory", "shm"):
            kept = await bench.hub.client.call("ask", "HSTRLEN", bench.key("meta"), "pace")
            assert 64 * 16 == kept
