"""The counters that a handle keeps for its claims."""

from __future__ import annotations

from rxdispatch.results import BoardStats
from rxdispatch.task import Task
from tests.boards.places import Place, until


async def test_settled_refused_and_lost(place: Place) -> None:
    """Each handle counts its own settlements, refusals and losses, each once."""
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


async def test_stats_every(place: Place) -> None:
    """The stream emits the counters at once and after each period."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0))
        got: list[int] = []
        with board.stats_every(0.05).subscribe(lambda stats: got.append(stats.settled)):
            await until(lambda: got == [0])
            await board.settle([claim.done() for claim in await board.claim(1)])
            await until(lambda: got[-1] == 1)
