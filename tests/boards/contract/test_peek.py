"""Reading tasks without claiming them."""

from __future__ import annotations

from typing import Any

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.task import Task
from tests.boards.places import Place


async def test_payloads_are_read_whatever_the_state(place: Place) -> None:
    """Ready, claimed and dead tasks are returned; for done and unknown ones there is None."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(n, id=f"t{n}") for n in range(4))
        claims = {c.task.id: c for c in await board.claim(3, ids=["t1", "t2", "t3"])}
        await board.settle([claims["t2"].dead("bad"), claims["t3"].done()])
        ids = ["t3", "t0", "none", "t1", "t2", "t1"]
        assert [None, 0, None, 1, 2, 1] == await board.peek(ids)
        assert [] == await board.peek([])
        assert await board.settle(claims["t1"].done())
        state = await board.get("t0")
        assert state is not None
        assert (0, 0) == (state.attempts, state.crashes)


async def test_many_and_large_ones_are_read(place: Place) -> None:
    """Many or large tasks are read in several replies."""
    async with place.bench() as bench:
        board = bench.board()
        large = ["x" * 700_000 + str(n) for n in range(4)]
        await board.submit(Task(text, id=text[-1]) for text in large)
        found = await board.peek([*(str(n % 4) for n in range(6)), *map(str, range(4, 1500))])
        assert [large[n % 4] for n in range(6)] == found[:6]
        assert [None] * 1496 == found[6:]


async def test_what_is_no_id_is_refused(place: Place) -> None:
    """A value that is no id is refused, and a single str is one id."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task("payload", id="ab"))
        assert ["payload"] == await board.peek("ab")
        wrong: Any
        for wrong in ([""], [5], 5, ["x" * 1025]):
            with pytest.raises(ConfigError, match=r"^ids? must be"):
                await board.peek(wrong)
