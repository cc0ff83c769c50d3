"""``cancel`` reaches the running handler at once, long before the next renewal."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from reactivex import Observable, Subject

from rxdispatch import operators as ops
from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim
from rxdispatch.task import Task
from tests.boards.places import Place, counts, until

LEASE = 3000.0
"""The first renewal would come after a third of this, so no test waits for one."""


class Handler:
    """A handler that runs until it is cancelled."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.cancelled: list[str] = []

    async def __call__(self, task: Task[Any]) -> None:
        self.running.append(task.id)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled.append(task.id)
            raise
        finally:
            self.running.remove(task.id)


def by_claims(board: Board[Any], _: list[str]) -> Observable[Claim[Any]]:
    """Claim whatever is ready."""
    return board.claims(lease=LEASE)


def by_id(board: Board[Any], ids: list[str]) -> Observable[Claim[Any]]:
    """Claim the tasks that pass by, in a stream that does not end."""
    source: Subject[str] = Subject()

    def emit() -> None:
        for each in ids:
            source.on_next(each)

    asyncio.get_running_loop().call_soon(emit)
    return source.pipe(ops.claim_each(board, lease=LEASE))


Claims = Callable[[Board[Any], list[str]], Observable[Claim[Any]]]


@pytest.mark.parametrize("claims", [by_claims, by_id])
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_the_handler_is_cancelled(place: Place, claims: Claims, elsewhere: bool) -> None:
    """Only the handlers of the cancelled tasks end, and their tasks are dead."""
    async with place.bench() as bench:
        board, handler = bench.board(), Handler()
        ids = [f"{n}" for n in range(6)]
        await board.submit(Task(0, id=each) for each in ids)
        stream = claims(board, ids).pipe(ops.execute(handler), ops.settle(board))
        with stream.subscribe():
            await until(lambda: len(handler.running) == 6)
            by = bench.elsewhere() if elsewhere else board
            assert [True, True] == await by.cancel(["1", "4"])
            await until(lambda: sorted(handler.cancelled) == ["1", "4"])
            assert ["0", "2", "3", "5"] == sorted(handler.running)
            assert [True] == await by.cancel(["0"])
            await until(lambda: len(handler.cancelled) == 3)
            assert (0, 0, 3, 0, 3) == await counts(board)
            assert 3 == board.stats.lost
        await until(lambda: not handler.running)
        await board._intakes.finished()


async def test_a_claim_that_waits_is_not_emitted(place: Place) -> None:
    """A task that was cancelled before its handler could start does not start."""
    async with place.bench() as bench:
        board, handler = bench.board(), Handler()
        stream = board.claims(lease=LEASE, prefetch=4).pipe(
            ops.execute(handler, max_concurrent=1), ops.settle(board)
        )
        with stream.subscribe():
            await board.submit(Task(0, id=f"{n}") for n in range(4))
            await until(lambda: handler.running)
            (running,) = handler.running
            waiting = sorted({"0", "1", "2", "3"} - {running})
            assert [True] * 2 == await bench.elsewhere().cancel(waiting[:2])
            assert [True] == await bench.elsewhere().cancel([running])
            await until(lambda: handler.running == [waiting[2]])
            assert [running] == handler.cancelled
        await until(lambda: not handler.running)
        await board._intakes.finished()


async def test_a_cancelled_retry_is_lost_to_its_new_worker_only(place: Place) -> None:
    """A message about an old claim of the task does nothing to the new one."""
    async with place.bench() as bench:
        board, handler = bench.board(), Handler()
        await board.submit(Task(0, id="a"))
        stream = board.claims(lease=LEASE).pipe(ops.execute(handler), ops.settle(board))
        with stream.subscribe():
            await until(lambda: handler.running)
            assert [True] == await bench.elsewhere().cancel(["a"])
            assert 1 == await bench.elsewhere().redrive(["a"])
            await until(lambda: handler.cancelled and handler.running)
            assert (["a"], ["a"]) == (handler.cancelled, handler.running)
            assert (0, 0, 1, 0, 0) == await counts(board)
        await until(lambda: not handler.running)
        await board._intakes.finished()
