"""What a handle counts of its claims."""

from __future__ import annotations

from rxdispatch.results import BoardStats
from rxdispatch.task import Task
from tests.boards.places import Place


async def test_settled_refused_and_lost(place: Place) -> None:
    """What held, what did not, and what a renewal learned; each once, and by handle."""
    async with place.bench() as bench:
        board = bench.board()
        other = bench.elsewhere()
        await board.submit(Task(n) for n in range(4))
        a, b, c, d = await board.claim(4, lease=30.0)
        await board.settle(a.done())
        await bench.later(40)
        await other.claim(0)
        assert [False] == await board.settle(b.done())
        assert [False] == await board.settle(b.done())
        assert [c, d] == await board.renew([c, d], 30.0)
        assert [c] == await board.renew([c], 30.0)
        assert BoardStats(settled=1, refused=1, lost=2) == board.stats
        assert BoardStats(settled=0, refused=0, lost=0) == other.stats
