"""Data that a restore or a foreign client truncated does not stop a worker."""

from __future__ import annotations

from rxdispatch.task import Status, Task
from tests.boards.places import Place


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
