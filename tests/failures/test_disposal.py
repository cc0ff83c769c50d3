"""Streams that end early or drop claims on the way."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from reactivex import Observable
from reactivex import operators as rx
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.clock import LoopScheduler
from tests.failures.fleet import eventually, subscribed
from tests.servers import Kind, any_server

Board = rxd.Board[Any]


@attrs.define
class Work:
    """
    A handler that counts its runs.

    Attributes:
        started: The id of each task whose handler began, once per run.
        ended: The id of each task whose handler ended normally, once per run.
    """

    seconds: float
    started: list[str] = attrs.field(factory=list[str])
    ended: list[str] = attrs.field(factory=list[str])
    at_once: int = 0
    most: int = 0

    async def handler(self, task: rxd.Task[int]) -> None:
        self.started.append(task.id)
        self.at_once += 1
        self.most = max(self.most, self.at_once)
        try:
            await asyncio.sleep(self.seconds)
        finally:
            self.at_once -= 1
        self.ended.append(task.id)


def tasks(count: int) -> list[rxd.Task[int]]:
    """Return tasks whose payload is their number."""
    return [rxd.Task(i, id=f"t{i}") for i in range(count)]


async def the_rest(board: Board, before: int) -> None:
    """Run the remaining tasks to the end; none of them waits for a lease to lapse."""
    counts = await board.counts()
    assert (0, 0) == (counts.claimed, counts.scheduled)
    work = Work(0.0)
    await rxd.run(board.claims(until="joined").pipe(ops.execute(work.handler), ops.settle(board)))
    assert before == len(work.ended)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_disposing_with_work_running_gives_it_back(kind: Kind) -> None:
    """Handlers are cancelled, and their tasks are ready again at once."""
    async with any_server(kind) as target, rxd.connect(target.safe) as hub:
        board: Board = hub.board("b")
        async with subscribed(hub, board) as account:
            await board.submit(tasks(40))
            work = Work(60.0)
            subscription = (
                board.claims(prefetch=16, lease=30.0)
                .pipe(ops.execute(work.handler, max_concurrent=4), ops.settle(board))
                .subscribe(scheduler=LoopScheduler(asyncio.get_running_loop()))
            )
            await eventually(lambda: len(work.started) == 4)
            subscription.dispose()
            subscription.dispose()
            await eventually(lambda: work.at_once == 0)
            await board._intakes.finished()
            await the_rest(board, 40)
            ids = [task.id for task in tasks(40)]
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)
            assert not account.count("crashed", "dead", "retried")


Stream = Callable[[Board, Work], Observable[Any]]


def _before_execute(board: Board, work: Work) -> Observable[Any]:
    return board.claims(prefetch=16, lease=30.0).pipe(
        rx.take(10), ops.execute(work.handler, max_concurrent=4), ops.settle(board)
    )


def _after_execute(board: Board, work: Work) -> Observable[Any]:
    return board.claims(prefetch=16, lease=30.0).pipe(
        ops.execute(work.handler, max_concurrent=4), rx.take(10), ops.settle(board)
    )


def _after_settle(board: Board, work: Work) -> Observable[Any]:
    return board.claims(prefetch=16, lease=30.0).pipe(
        ops.execute(work.handler, max_concurrent=4), ops.settle(board), rx.take(10)
    )


@pytest.mark.parametrize("stream", [_before_execute, _after_execute, _after_settle])
async def test_take_ends_a_stream_without_holding_anything(stream: Stream) -> None:
    """With ``take(10)`` anywhere, ten outcomes come, the other tasks are ready, none ends twice."""
    async with any_server("valkey") as target, rxd.connect(target.safe) as hub:
        board: Board = hub.board("b")
        async with subscribed(hub, board) as account:
            await board.submit(tasks(40))
            ids = [task.id for task in tasks(40)]
            work = Work(0.02)
            results: list[rxd.Outcome[Any, Any]] = []
            await rxd.run(stream(board, work).pipe(rx.do_action(results.append)))
            assert ["done"] * 10 == [outcome.status for outcome in results]
            await eventually(lambda: work.at_once == 0)
            await board._intakes.finished()
            done = (await board.counts()).done
            # Below settle, settlements that were already under way are written too.
            assert done == 10 if stream is not _after_settle else 10 <= done <= 14
            await the_rest(board, 40 - done)
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)
            assert not account.count("crashed", "dead", "retried")


async def test_dropped_claims_come_back_after_a_lease() -> None:
    """Claims that a ``filter`` drops cause a warning, are not held, and cause no busy loop."""
    async with any_server("valkey") as target, rxd.connect(target.safe) as hub:
        board: Board = hub.board("b")
        async with subscribed(hub, board) as account:
            await board.submit(tasks(40))
            ids = [task.id for task in tasks(40)]
            work = Work(0.0)
            lease = 2.0
            with capture_logs() as logs:
                pipeline = asyncio.create_task(
                    rxd.run(
                        board.claims(prefetch=16, lease=lease).pipe(
                            rx.filter(_even), ops.execute(work.handler), ops.settle(board)
                        )
                    )
                )
                # Wait until the dropped tasks have come twice.
                await eventually(
                    lambda: (
                        account.count("claimed")["t1"] >= 2 and account.count("claimed")["t39"] >= 2
                    )
                )
                assert Counter(ids[::2]) == Counter(work.ended)
                claimed = account.count("claimed")
                pipeline.cancel()
                await asyncio.wait({pipeline})
                await board._intakes.finished()
            warnings = [e for e in logs if e["log_level"] == "warning"]
            assert {"claims_dropped"} == {entry["event"] for entry in warnings}
            assert all(1 == claimed[i] for i in ids[::2])
            # The tasks come again once per lease, not as often as possible.
            assert all(2 <= claimed[i] <= 8 for i in ids[1::2])
            assert not account.count("crashed", "dead")
            # Without the filter, the waiting tasks come too.
            await rxd.run(
                board.claims(until="joined").pipe(ops.execute(work.handler), ops.settle(board))
            )
            assert Counter(ids) == Counter(work.ended)
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)


def _even(claim: rxd.Claim[int]) -> bool:
    return claim.task.payload % 2 == 0
