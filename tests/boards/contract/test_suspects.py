"""Tasks whose worker died are tried apart, so that a poison task takes few others along."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim
from rxdispatch.task import Task
from tests.boards.places import Bench, Place, counts


def ids(claims: list[Claim[Any]]) -> list[str]:
    """Return the ids of *claims*."""
    return [claim.task.id for claim in claims]


async def suspects(bench: Bench, count: int, crashes: int = 1, **options: Any) -> Board[Any]:
    """Return a board with tasks s0, s1, ... that have had *crashes* crashes each."""
    board = bench.board(**options)
    await board.submit(Task(0, id=f"s{n}") for n in range(count))
    for _ in range(crashes):
        await board.claim(count, ids=[f"s{n}" for n in range(count)], lease=10.0)
        await bench.later(20)
    await board.claim(0)
    return board


async def test_four_at_a_time_after_the_first_crash(place: Place) -> None:
    """A worker gets four suspects in order, one more for each that it ends, and other tasks too."""
    async with place.bench() as bench:
        board = await suspects(bench, 6)
        await board.submit(Task(0, id=f"p{n}") for n in range(3))
        first = await board.claim(5, worker="w")
        assert ["s0", "s1", "s2", "s3", "p0"] == ids(first)
        assert ["p1", "p2"] == ids(await bench.elsewhere().claim(9, worker="w"))
        assert ["s4", "s5"] == ids(await board.claim(9, worker="other"))
        assert (0, 0, 9, 0, 0) == await counts(board)


async def test_room_comes_back_however_a_claim_ends(place: Place) -> None:
    """A claim frees room when it is done, dead, retried, released, cancelled or crashed."""
    async with place.bench() as bench:
        board = await suspects(bench, 30, max_crashes=9)
        held = await board.claim(9, worker="w")
        assert ["s0", "s1", "s2", "s3"] == ids(held)
        await board.settle([held[0].done(), held[1].dead("no")])
        assert ["s4", "s5"] == ids(await board.claim(9, worker="w"))
        await board.settle([held[2].retry("no", 500.0), held[3].release(500.0)])
        more = await board.claim(9, worker="w")
        assert ["s6", "s7"] == ids(more)
        await board.cancel(["s4", "s5"])
        assert ["s8", "s9"] == ids(await board.claim(9, worker="w", lease=10.0))
        await board.settle([claim.done() for claim in more])
        await bench.later(20)
        # s8 and s9 have crashed twice and come before the others, so one of them is claimed,
        # alone.
        assert ["s8"] == ids(await board.claim(9, worker="w"))
        assert [] == ids(await board.claim(9, worker="w"))


@pytest.mark.parametrize(("crashes", "limit"), [(2, 9), (1, 1), (2, 2)])
async def test_alone_from_the_second_or_before_the_last(
    place: Place, crashes: int, limit: int
) -> None:
    """A suspect with two crashes, or one left, is the only suspect of its worker."""
    async with place.bench() as bench:
        board = await suspects(bench, 3, crashes, max_crashes=limit)
        await board.submit(Task(0, id=f"p{n}") for n in range(3))
        assert ["s0", "p0"] == ids(await board.claim(2, worker="w"))
        assert ["p1", "p2"] == ids(await board.claim(9, worker="w"))
        assert ["s1"] == ids(await board.claim(9, worker="x"))
        assert (0, 1, 5, 0, 0) == await counts(board)


async def test_priority_and_place_count_beside_plain_tasks(place: Place) -> None:
    """A suspect waits behind better tasks and comes before worse ones."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a"), Task(0, id="s"), Task(0, id="b")])
        await board.claim(1, ids=["s"], lease=10.0)
        await bench.later(20)
        await board.submit(Task(0, id="high", priority=1))
        assert ["high"] == ids(await board.claim(1))
        assert ["a", "s"] == ids(await board.claim(2))
        assert ["b"] == ids(await board.claim(9))


async def test_who_names_a_suspect_gets_it(place: Place) -> None:
    """A claim by id ignores the limit, but its task counts towards it."""
    async with place.bench() as bench:
        board = await suspects(bench, 8)
        named = await board.claim(9, ids=["s7", "s6", "s5", "s4", "s3"], worker="w")
        assert ["s7", "s6", "s5", "s4", "s3"] == ids(named)
        assert [] == ids(await board.claim(9, worker="w"))
        await board.settle([claim.done() for claim in named])
        assert ["s0", "s1", "s2"] == ids(await board.claim(9, worker="w"))


async def test_a_redriven_task_is_no_suspect(place: Place) -> None:
    """A redriven task has no crashes."""
    async with place.bench() as bench:
        board = await suspects(bench, 9, 2, max_crashes=1)
        assert (0, 0, 0, 0, 9) == await counts(board)
        assert 9 == await board.redrive()
        assert 9 == len(await board.claim(9, worker="w"))


async def test_suspects_count_in_lag_and_expire(place: Place) -> None:
    """Suspects count in the lag, and their ttl ends them."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="s", ttl=100.0), Task(1, id="t")])
        await board.claim(2, lease=10.0)
        await bench.later(50)
        await board.claim(0)
        assert 40 <= await board.lag() <= 60
        await bench.later(60)
        assert ["t"] == ids(await board.claim(9))
        assert (0, 0, 1, 0, 1) == await counts(board)


async def test_a_lost_machine_hides_nothing(place: Place) -> None:
    """A worker without room for a thousand suspects takes the task behind them."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id=f"s{n}") for n in range(1000))
        await board.claim(1000, lease=10.0)
        await bench.later(20)
        assert 4 == len(await board.claim(9, worker="w"))
        await board.submit(Task(0, id="plain"))
        assert ["plain"] == ids(await board.claim(9, worker="w"))
        assert [] == ids(await board.claim(9, worker="w"))


@pytest.mark.parametrize("until", ["idle", "joined"])
async def test_a_stream_brings_all_of_them(place: Place, until: Any) -> None:
    """A stream brings four at a time, without waiting for a poll and without a busy loop."""
    async with place.bench() as bench:
        board = await suspects(bench, 40)
        await board.submit(Task(0, id=f"p{n}") for n in range(40))
        at_work = most = calls = 0
        reader: Any = board._reader
        claim = reader.claim

        async def counted(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            return await claim(*args, **options)

        async def handle(task: Task[Any]) -> None:
            nonlocal at_work, most
            suspect = task.id.startswith("s")
            at_work += suspect
            most = max(most, at_work)
            await asyncio.sleep(0.002)
            at_work -= suspect

        reader.claim = counted
        async with asyncio.timeout(12):
            await rxd.run(board.claims(until=until).pipe(ops.execute(handle), ops.settle(board)))
        assert (0, 0, 0, 80, 0) == await counts(board)
        assert 0 < most <= 4
        assert 0 < calls <= 120


async def test_a_stream_that_can_take_no_more_waits(place: Place) -> None:
    """While it holds a suspect and others wait, the stream does not claim again and again."""
    async with place.bench() as bench:
        board = await suspects(bench, 300, 2)
        calls = 0
        reader: Any = board._reader
        claim = reader.claim

        async def counted(*args: Any, **options: Any) -> Any:
            nonlocal calls
            calls += 1
            return await claim(*args, **options)

        reader.claim = counted
        begun, go = asyncio.Event(), asyncio.Event()

        async def handle(task: Task[Any]) -> None:
            begun.set()
            await go.wait()

        stream = board.claims().pipe(ops.execute(handle), ops.settle(board))
        running = asyncio.ensure_future(rxd.run(stream))
        await begun.wait()
        before = calls
        assert before > 0
        await asyncio.sleep(0.3)
        assert calls - before <= 3
        assert (0, 299, 1, 0, 0) == await counts(board)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("poisons", [{3}, {0, 1}, {2, 11, 25}])
async def test_neighbours_of_poison_live(place: Place, poisons: set[int]) -> None:
    """Only the task that kills its worker dies as ``crashed``, however many neighbours it has."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(n, id=f"{n}") for n in range(30))
        for number in range(200):
            worker = f"w{number}"
            claims = await board.claim(16, worker=worker, lease=10.0)
            if not claims:
                break
            if poisons & {claim.task.payload for claim in claims}:
                await bench.later(20)  # the task kills this worker, and all leases lapse
            else:
                await board.settle([claim.done() for claim in claims])
        dead = [letter async for letter in board.dead_letters()]
        assert {f"{n}" for n in poisons} == {letter.task.id for letter in dead}
        assert {("crashed", 4)} == {(letter.reason, letter.crashes) for letter in dead}
        assert (0, 0, 0, 30 - len(poisons), len(poisons)) == await counts(board)
