"""The number of claims that a worker holds, as the server counts them."""

from __future__ import annotations

import asyncio
import gc
from collections import Counter
from typing import Any

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failures.fleet import eventually, subscribed
from tests.servers import valkey_server

Board = rxd.Board[Any]


async def test_prefetch_is_never_exceeded() -> None:
    """Fast handlers make a worker claim ahead, up to its prefetch and no more."""
    count, prefetch = 3000, 40
    ids = [str(i) for i in range(count)]
    claimed: list[int] = []

    async def handler(_: rxd.Task[int]) -> None:
        await asyncio.sleep(0)

    async def watching(board: Board) -> None:
        while True:
            claimed.append((await board.counts()).claimed)

    async with (
        valkey_server() as server,
        rxd.connect(server.target.safe) as hub,
        rxd.connect(server.target.safe) as other,
    ):
        board: Board = hub.board("b")
        observed: Board = other.board("b")
        async with subscribed(other, observed) as account:
            await observed.submit([rxd.Task(0, id=i) for i in ids])
            watch = asyncio.create_task(watching(observed))
            await rxd.run(
                board.claims(until="joined", prefetch=prefetch).pipe(
                    ops.execute(handler, max_concurrent=16), ops.settle(board)
                )
            )
            watch.cancel()
            await asyncio.wait({watch})
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)
    # The counts show claims, and never too many.
    assert 16 <= max(claimed) <= prefetch


async def test_stalled_handlers_stop_claiming() -> None:
    """A worker whose handlers stall holds these tasks only; the rest is free for another worker."""
    ids = [str(i) for i in range(300)]
    stalled: list[str] = []
    release = asyncio.Event()

    async def stalls(task: rxd.Task[int]) -> None:
        stalled.append(task.id)
        await release.wait()

    async def works(_: rxd.Task[int]) -> None:
        await asyncio.sleep(0)

    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: Board = hub.board("b")
        async with subscribed(hub, board) as account:
            lease = 0.9
            await board.submit([rxd.Task(0, id=i) for i in ids])
            first = asyncio.create_task(
                rxd.run(
                    board.claims(lease=lease).pipe(
                        ops.execute(stalls, max_concurrent=4), ops.settle(board)
                    )
                )
            )
            await eventually(lambda: len(stalled) == 4)
            # For three leases, renewal keeps these claims, and no others are added.
            for _ in range(30):
                counts = await board.counts()
                assert (4, 296) == (counts.claimed, counts.ready)
                await asyncio.sleep(0.1)
            async with rxd.connect(server.target.safe) as other:
                second: Board = other.board("b")
                await rxd.run(
                    second.claims(until="idle").pipe(ops.execute(works), ops.settle(second))
                )
            assert 4 == len(stalled)
            assert 296 == (await board.counts()).done
            release.set()
            await board.join()
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)
            assert Counter(ids) == account.count("claimed")
            first.cancel()
            await asyncio.wait({first})


async def test_memory_is_bounded_with_a_stalled_consumer() -> None:
    """If a subscriber below ``settle`` stalls, few claims are in memory; the rest stays put."""
    count = 5000
    taken: list[Any] = []
    release = asyncio.Event()

    async def handler(_: rxd.Task[bytes]) -> None:
        await asyncio.sleep(0)

    async def stalls(outcome: rxd.Outcome[bytes, None]) -> None:
        taken.append(outcome.claim.task.id)
        await release.wait()

    def alive() -> int:
        gc.collect()
        return sum(isinstance(thing, rxd.Claim) for thing in gc.get_objects())

    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: Board = hub.board("b")
        await board.submit([rxd.Task(b"x" * 2000) for _ in range(count)])
        pipeline = asyncio.create_task(
            rxd.run(
                board.claims(prefetch=64).pipe(
                    ops.execute(handler, max_concurrent=8),
                    ops.settle(board, count=16),
                    ops.map_async(stalls, max_concurrent=2),
                )
            )
        )
        await eventually(lambda: len(taken) == 2)
        done = -1
        while done != (done := (await board.counts()).done):
            await asyncio.sleep(0.2)
        counts = await board.counts()
        # The sum of what each operator may hold, by its own valve.
        assert counts.done + counts.claimed <= 2 + 64 + 8 + 4 * 16
        assert alive() <= 2 + 64 + 8 + 4 * 16
        assert count - counts.done - counts.claimed == counts.ready
        release.set()
        await eventually(lambda: len(taken) > 1000)
        pipeline.cancel()
        await asyncio.wait({pipeline})
