"""Data that a restore or a foreign client truncated or deleted does not stop a worker."""

from __future__ import annotations

import asyncio

from rxdispatch.task import Status, Task
from tests.boards.places import Place, counts


async def test_marks_that_were_cut_short(server: Place) -> None:
    """The worker goes on, and the fields that are intact are still reported."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(n, id=f"{n}") for n in range(3)])
        await board.cancel("2")
        await bench.hub.client.call("spoil", "HSET", bench.key("tries"), "0", b"\x01")
        await bench.hub.client.call("spoil", "HSET", bench.key("grave"), "2", b"\x01")
        claims = await board.claim(3)
        assert [("0", 1), ("1", 1)] == [(claim.task.id, claim.attempt) for claim in claims]
        assert [True, True] == await board.settle(claim.retry("no") for claim in claims)
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("2", "", "") == (letter.task.id, letter.reason, letter.error)
        state = await board.get("2")
        assert state is not None
        assert (Status.DEAD, 0) == (state.status, state.attempts)
        await bench.hub.client.call("spoil", "HSET", bench.key("tries"), "1", b"")
        assert 1 == await board.redrive("2")
        again = {claim.task.id: claim.attempt for claim in await board.claim(3)}
        assert {"0": 2, "1": 1, "2": 1} == again


async def test_lost_meta(server: Place) -> None:
    """Leases still lapse, delays end, and suspects are found."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="suspect"), Task(0, id="claimed")])
        await board.submit([Task(0, id="later", delay=50.0), Task(0, id="old", ttl=50.0)])
        await board.claim(1, lease=10.0)
        await bench.later(20)
        await board.claim(1, ids=["claimed"], lease=30.0)
        await bench.hub.client.call("lose", "DEL", bench.key("meta"))
        assert (1, 2, 1, 0, 0) == await counts(board)
        await bench.later(100)
        claims = await board.claim(9)
        assert {"suspect", "claimed", "later"} == {claim.task.id for claim in claims}
        assert (0, 0, 3, 0, 1) == await counts(board)


async def test_kinds_and_lost_meta(server: Place) -> None:
    """Tasks that stand aside are found again, and those of each kind are still counted."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id=kind, kind=kind) for kind in ("b", "a", "default", "c"))
        (claim,) = await board.claim(1, kinds=["c"])
        await bench.hub.client.call("lose", "DEL", bench.key("meta"))
        found = await board.kinds()
        assert [("a", 1), ("b", 1), ("c", 1), ("default", 1)] == [
            (kind, state.unfinished) for kind, state in found.items()
        ]
        await board.cancel("none")
        assert ["a"] == [claim.task.id for claim in await board.claim(9, kinds=["a"])]
        assert ["b", "default"] == [claim.task.id for claim in await board.claim(2)]
        assert [True] == await board.settle([claim.done()])
        async with asyncio.timeout(5.0):
            await board.join(kinds=["c"])
        assert (0, 0, 3, 1, 0) == await counts(board)


async def test_lost_tries(server: Place) -> None:
    """Tasks with a crash behind them can be claimed, and do not count against the worker."""
    async with server.bench() as bench:
        board = bench.board(max_crashes=9)
        await board.submit([Task(0, id=f"{n}") for n in range(6)])
        await board.claim(6, lease=10.0)
        await bench.later(20)
        claims = await board.claim(9, lease=100.0)
        assert 4 == len(claims)
        await bench.hub.client.call("lose", "DEL", bench.key("tries"))
        # A delay that is over makes the board look at everything.
        await board.submit(Task(0, id="later", delay=10.0))
        await bench.later(20)
        assert ["later"] == [claim.task.id for claim in await board.claim(1, ids=["later"])]
        assert (0, 2, 5, 0, 0) == await counts(board)
        assert [True] * 4 == await board.settle([claim.done() for claim in claims])
        assert 2 == len(await board.claim(9))
        assert 0 == await bench.hub.client.call("ask", "EXISTS", bench.key("held"))


async def test_lost_ranges(server: Place) -> None:
    """The tasks of thousands of claims go back when the first lease lapses."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=f"{n}") for n in range(9000)])
        claims = await board.claim(9000, lease=10.0)
        await bench.hub.client.call("lose", "DEL", bench.key("ranges"))
        assert [] == await board.renew(claims[:10], 10.0)
        assert [True] * 9 == await board.settle([claim.done() for claim in claims[1:10]])
        await bench.later(20)
        for _ in range(9):
            # A sweep moves a limited number.
            await board.claim(0)
        assert (0, 8991, 0, 9, 0) == await counts(board)
        assert 0 == await bench.hub.client.call("ask", "EXISTS", bench.key("leases"))
