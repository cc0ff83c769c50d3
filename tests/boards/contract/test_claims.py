"""``claims()``: a board as an observable."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim
from rxdispatch.clock import LoopScheduler
from rxdispatch.task import Task
from rxdispatch.valve import Gate
from tests.boards.places import Place, counts, until


def ended(board: Board[Any], found: list[Any], **options: Any) -> asyncio.Future[None]:
    """Subscribe, settle each claim as done, and return a future of the end."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def take(claim: Claim[Any]) -> None:
        found.append(claim.task.payload)
        board._intakes.post([claim.done()])

    board.claims(**options).subscribe(take, future.set_exception, lambda: future.set_result(None))
    return future


async def test_until_idle(place: Place) -> None:
    """The stream completes when nothing is ready; scheduled tasks do not keep it open."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n) for n in range(50)])
        await board.submit(Task("later", delay=100.0))
        found: list[Any] = []
        await ended(board, found, until="idle")
        await board._intakes.finished()
        assert list(range(50)) == found
        assert (1, 0, 0, 50, 0) == await counts(board)


async def test_until_idle_of_more_than_prefetch(place: Place) -> None:
    """Many small batches bring all tasks."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n) for n in range(500)])
        found: list[Any] = []
        await ended(board, found, until="idle", prefetch=7)
        await board._intakes.finished()
        assert list(range(500)) == found


async def test_until_idle_of_large_payloads(place: Place) -> None:
    """A batch that the server cuts short is not taken for the end."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(b"x" * 900_000) for _ in range(50)])
        found: list[Any] = []
        await ended(board, found, until="idle")
        await board._intakes.finished()
        assert 50 == len(found)
        assert (0, 0, 0, 50, 0) == await counts(board)


async def test_until_idle_of_an_empty_board(place: Place) -> None:
    """The stream completes at once."""
    async with place.bench() as bench:
        found: list[Any] = []
        await ended(bench.board(), found, until="idle")
        assert [] == found


async def test_until_joined(place: Place) -> None:
    """The stream completes when all tasks are finished, also by other workers, retries included."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n) for n in range(20)])
        await board.submit(Task("later", delay=0.1))
        (elsewhere,) = await bench.elsewhere().claim(1)
        found: list[Any] = []
        end = ended(board, found, until="joined")
        await until(lambda: len(found) == 20)
        await asyncio.sleep(0.05)
        assert not end.done()
        await bench.elsewhere().settle([elsewhere.retry("no", delay=0.05)])
        async with asyncio.timeout(5.0):
            await end
        assert [*range(1, 20), "later", 0] == found
        assert (0, 0, 0, 21, 0) == await counts(board)


@pytest.mark.serial
async def test_never(place: Place) -> None:
    """The stream waits for more tasks and receives them at once."""
    async with place.bench() as bench:
        board = bench.board()
        found: list[Any] = []

        def take(claim: Claim[Any]) -> None:
            found.append(claim.task.payload)
            board._intakes.post([claim.done()])

        with board.claims().subscribe(take):
            await asyncio.sleep(0.1)
            for n in range(5):
                await bench.elsewhere().submit(Task(n))
                # This is long before the next poll, 0.98 s after the last claim at the earliest.
                await until(lambda: len(found) == n + 1, 0.8)  # noqa: B023 - awaited at once
                await asyncio.sleep(0.01)
        await board._intakes.finished()
        assert [0, 1, 2, 3, 4] == found


async def test_no_more_than_prefetch(place: Place) -> None:
    """The board never counts more claims than ``prefetch``."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n) for n in range(50)])
        found: list[Claim[Any]] = []
        with board.claims(prefetch=5).subscribe(found.append):
            await until(lambda: len(found) == 5)
            await asyncio.sleep(0.05)
            assert (0, 45, 5, 0, 0) == await counts(board)
            await board.settle([found[1].done(), found[3].release()])
            await until(lambda: len(found) == 7)
            await asyncio.sleep(0.05)
            assert (0, 44, 5, 1, 0) == await counts(board)
        await board.settle([claim.done() for claim in found])


async def test_no_more_than_there_is_room_for(place: Place) -> None:
    """While the valve is closed, the tasks stay on the board."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n) for n in range(50)])
        found: list[Claim[Any]] = []
        gate = Gate(lambda: 3 - len(found), None)
        loop = asyncio.get_running_loop()
        with board.claims().subscribe(found.append, scheduler=LoopScheduler(loop, valve=gate)):
            await until(lambda: len(found) == 3)
            await asyncio.sleep(0.05)
            assert 3 == len(found)
            assert (0, 47, 3, 0, 0) == await counts(board)
        gate.dispose()
        await board.settle([claim.done() for claim in found])


async def test_disposal_gives_back_what_waits(place: Place) -> None:
    """Emitted claims stay held; waiting ones are ready again, in their places."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n) for n in range(10)])
        found: list[Claim[Any]] = []
        subscription = board.claims().subscribe(found.append)
        await until(lambda: found)
        subscription.dispose()
        await board._intakes.finished()
        held = len(found)
        assert (0, 10 - held, held, 0, 0) == await counts(board)
        assert [True] * held == await board.settle([claim.done() for claim in found])


async def test_disposal_while_claiming(place: Place) -> None:
    """A claim call that is running when the stream ends gives all its tasks back."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n, id=f"{n}") for n in range(10)])
        for rounds in range(4):
            found: list[Claim[Any]] = []
            subscription = board.claims().subscribe(found.append)
            for _ in range(rounds):
                await asyncio.sleep(0)
            subscription.dispose()
            await board._intakes.finished()
            await board.settle([claim.release() for claim in found])
            assert (0, 10, 0, 0, 0) == await counts(board)
        claims = await board.claim(10)
        assert [(f"{n}", 1, 0) for n in range(10)] == [
            (claim.task.id, claim.attempt, claim.crashes) for claim in claims
        ]


@pytest.mark.serial
async def test_what_is_held_is_renewed(place: Place) -> None:
    """A claim is held for three leases, during which no other worker gets the task."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0))
        found: list[Claim[Any]] = []
        with board.claims(lease=0.3, worker="me").subscribe(found.append):
            await until(lambda: found)
            await asyncio.sleep(0.9)
            assert [] == await bench.elsewhere().claim(1)
            assert not found[0].lost
            assert "me" == found[0].worker
            assert [True] == await board.settle([found[0].done()])


@pytest.mark.serial
async def test_what_was_taken_away_is_lost(place: Place) -> None:
    """The next renewal marks the claim as lost."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        found: list[Claim[Any]] = []
        with board.claims(lease=0.3).subscribe(found.append):
            await until(lambda: found)
            await bench.elsewhere().cancel("a")
            await until(lambda: found[0].lost, 0.5)


async def test_two_handles_share(place: Place) -> None:
    """Each task goes to one of two handles."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        await board.submit([Task(n) for n in range(1000)])
        one: list[Any] = []
        two: list[Any] = []
        ends = [
            ended(board, one, until="joined", prefetch=10),
            ended(other, two, until="joined", prefetch=10),
        ]
        async with asyncio.timeout(20.0):
            await asyncio.gather(*ends)
        assert list(range(1000)) == sorted(one + two)
        assert one
        assert two
        assert (0, 0, 0, 1000, 0) == await counts(board)


async def test_one_observable_for_many_subscriptions(place: Place) -> None:
    """Each subscription claims its own tasks."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n) for n in range(4)])
        claims = board.claims(prefetch=2)
        one: list[Claim[Any]] = []
        two: list[Claim[Any]] = []
        with claims.subscribe(one.append), claims.subscribe(two.append):
            await until(lambda: len(one) == len(two) == 2)
        assert {0, 1, 2, 3} == {claim.task.payload for claim in one + two}
        await board.settle([claim.done() for claim in one + two])
