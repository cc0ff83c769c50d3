"""Delays, and tasks with a ttl."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest

from rxdispatch.claim import Claim
from rxdispatch.task import Status, Task
from tests.boards.places import Place, counts, until


async def test_a_delay_makes_it_wait(place: Place) -> None:
    """The task is scheduled until it is due, then ready for any worker."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a", delay=0.05), Task(0, id="b", delay=100.0)])
        assert (2, 0, 0, 0, 0) == await counts(board)
        state = await board.get("a")
        assert state is not None
        assert Status.SCHEDULED is state.status
        assert [] == await board.claim(5)
        await asyncio.sleep(0.06)
        assert ["a"] == [claim.task.id for claim in await board.claim(5)]
        assert (1, 0, 1, 0, 0) == await counts(board)


async def test_claims_tell_when_to_come_back(place: Place) -> None:
    """Each reply says in how many seconds the next task is due."""
    async with place.bench() as bench:
        board = bench.board()
        assert (await board._engine.claim(5, None, None, "w", 30.0)).due_in is None
        await board.submit([Task(0, id="a", delay=200.0), Task(0, id="b", delay=100.0)])
        due_in = (await board._engine.claim(5, None, None, "w", 30.0)).due_in
        assert due_in is not None
        assert 95.0 < due_in <= 100.0
        await board.cancel("b")
        due_in = (await board._engine.claim(5, None, None, "w", 30.0)).due_in
        assert due_in is not None
        assert 195.0 < due_in <= 200.0


@pytest.mark.serial
async def test_a_delayed_task_starts_on_time(place: Place) -> None:
    """An idle worker gets the task at most 50 ms late."""
    async with place.bench() as bench:
        board = bench.board()
        loop = asyncio.get_running_loop()
        late: list[float] = []
        due = 0.0

        def take(claim: Claim[Any]) -> None:
            late.append(loop.time() - due)
            board._intakes.post([claim.done()])

        with board.claims().subscribe(take):
            for wait in (0.3, 0.11, 0.07):
                await asyncio.sleep(0.1)
                due = loop.time() + wait
                expected = len(late) + 1
                await bench.elsewhere().submit(Task(0, delay=wait))
                await until(lambda: len(late) >= expected)  # noqa: B023 - awaited at once
        # A noisy machine may delay one of the tasks.
        assert -0.001 <= min(late)
        assert sorted(late)[1] <= 0.05


@pytest.mark.serial
async def test_a_retry_starts_on_time(place: Place) -> None:
    """A retry with a delay is as exact."""
    async with place.bench() as bench:
        board = bench.board()
        loop = asyncio.get_running_loop()
        times: list[float] = []

        def take(claim: Claim[Any]) -> None:
            times.append(loop.time())
            board._intakes.post([claim.retry("no", delay=0.1)])

        await board.submit(Task(0, max_attempts=4))
        with board.claims().subscribe(take):
            await board.join()
        gaps = [after - before for before, after in itertools.pairwise(times)]
        assert 3 == len(gaps)
        assert 0.099 <= min(gaps)
        assert sorted(gaps)[1] <= 0.15


@pytest.mark.parametrize("delay", [0.0, 100.0])
async def test_ttl_ends_what_nobody_claimed(place: Place, delay: float) -> None:
    """A ready or scheduled task dies, ``expired``, even if its ttl is shorter than its delay."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a", delay=delay, ttl=20.0), Task(0, id="b", ttl=1000.0)])
        await bench.later(40)
        assert ["b"] == [claim.task.id for claim in await board.claim(5)]
        assert (0, 0, 1, 0, 1) == await counts(board)
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("a", "expired", "", 0, 0) == (
            letter.task.id,
            letter.reason,
            letter.error,
            letter.attempts,
            letter.crashes,
        )


@pytest.mark.serial
@pytest.mark.parametrize("delay", [0.0, 100.0])
async def test_ttl_ends_it_within_two_seconds(place: Place, delay: float) -> None:
    """A live worker sweeps the task, even while the board is paused."""
    async with place.bench() as bench:
        board = bench.board()
        await board.pause()
        with board.claims().subscribe(lambda _: None):
            await board.submit(Task(0, id="a", ttl=0.1, delay=delay))
            async with asyncio.timeout(0.1 + 2.0):
                while (await board.counts()).dead == 0:
                    await asyncio.sleep(0.02)
        assert (0, 0, 0, 0, 1) == await counts(board)


async def test_a_running_attempt_may_finish(place: Place) -> None:
    """The ttl does not affect a claimed task."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", ttl=50.0))
        (claim,) = await board.claim(1, lease=300.0)
        await bench.later(60)
        assert [] == await board.claim(1)
        assert (0, 0, 1, 0, 0) == await counts(board)
        assert [] == await board.renew([claim], 300.0)
        assert [True] == await board.settle([claim.done()])
        assert (0, 0, 0, 1, 0) == await counts(board)


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("kind", ["retry", "release", "delayed"])
async def test_past_its_ttl_it_does_not_come_back(place: Place, kind: str, swept: bool) -> None:
    """A retry or a release after the ttl makes the task dead, with or without a sweep before it."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", ttl=50.0))
        (claim,) = await board.claim(1, lease=300.0)
        await bench.later(60)
        if swept:
            await board.claim(0)
        end = {
            "retry": claim.retry("late"),
            "release": claim.release(),
            "delayed": claim.retry("late", delay=5.0),
        }[kind]
        assert [True] == await board.settle([end])
        assert (0, 0, 0, 0, 1) == await counts(board)
        (letter,) = [letter async for letter in board.dead_letters()]
        expected = ("expired", "", 0) if kind == "release" else ("expired", "late", 1)
        assert expected == (letter.reason, letter.error, letter.attempts)


@pytest.mark.parametrize("swept", [False, True])
async def test_a_lapsed_lease_past_the_ttl(place: Place, swept: bool) -> None:
    """The task is dead, and the crash is counted."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", ttl=50.0))
        (claim,) = await board.claim(1, lease=100.0)
        await bench.later(60)
        if swept:
            await board.claim(0)
        await bench.later(60)
        assert [] == await board.claim(1)
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("expired", 0, 1) == (letter.reason, letter.attempts, letter.crashes)
        assert [False] == await board.settle([claim.done()])


async def test_ttl_counts_from_submission(place: Place) -> None:
    """The ttl does not restart with a retry; before its end a retry is allowed."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", ttl=150.0))
        (claim,) = await board.claim(1)
        await board.settle([claim.retry("no", delay=300.0)])
        assert (1, 0, 0, 0, 0) == await counts(board)
        await bench.later(170)
        assert [] == await board.claim(1)
        assert (0, 0, 0, 0, 1) == await counts(board)


async def test_a_done_task_leaves_no_limit_behind(place: Place) -> None:
    """The ttl of an earlier task with the same id does not end the later one."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a", ttl=50.0))
        (claim,) = await board.claim(1)
        await board.settle([claim.done()])
        await board.submit(Task(0, id="a"))
        await bench.later(60)
        assert ["a"] == [claim.task.id for claim in await board.claim(1)]


async def test_many_expire_at_once(place: Place) -> None:
    """If more tasks expire than one sweep takes, still no claim gets any of them."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, ttl=100.0) for _ in range(1200)])
        await board.submit(Task(0, id="good"))
        await bench.later(120)
        assert ["good"] == [claim.task.id for claim in await board.claim(10)]
        while (await board.counts()).ready:
            await board.claim(0)
        assert (0, 0, 1, 0, 1200) == await counts(board)
