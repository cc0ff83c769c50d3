"""Claiming: how many tasks, which ones, under which token."""

from __future__ import annotations

import asyncio

import pytest

from rxdispatch.task import Status, Task
from tests.boards.places import Place, counts, order


async def test_a_claim_tells_what_it_holds(place: Place) -> None:
    """A claim has task, token, attempt and worker, and is not lost."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task("p", id="a"))
        (claim,) = await board.claim(1, worker="me")
        assert ("a", "p", 1, 0, "me") == (
            claim.task.id,
            claim.task.payload,
            claim.attempt,
            claim.crashes,
            claim.worker,
        )
        assert isinstance(claim.token, int)
        assert not claim.lost
        state = await board.get("a")
        assert state is not None
        assert (Status.CLAIMED, "me", 1) == (state.status, state.worker, state.attempts)


async def test_workers_have_a_label_by_default(place: Place) -> None:
    """The default label is made of the host and the process id."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0))
        (claim,) = await board.claim(1)
        assert claim.worker


async def test_at_most_the_limit(place: Place) -> None:
    """Tasks beyond the limit stay ready."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0) for _ in range(5)])
        assert 2 == len(await board.claim(2))
        assert (0, 3, 2, 0, 0) == await counts(board)
        assert 3 == len(await board.claim(10))
        assert [] == await board.claim(10)


async def test_a_task_is_claimed_once(place: Place) -> None:
    """Handles that claim at the same time share the tasks."""
    async with place.bench() as bench:
        boards = [bench.board(), bench.elsewhere(), bench.board(), bench.elsewhere()]
        await boards[0].submit([Task(0, id=f"{n}") for n in range(400)])
        claims = await asyncio.gather(*(board.claim(60) for board in boards * 3))
        found = [claim.task.id for some in claims for claim in some]
        assert sorted(f"{n}" for n in range(400)) == sorted(found)


async def test_more_than_one_chunk(place: Place) -> None:
    """A claim of 2,500 is three atomic steps."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(n) for n in range(3000)])
        claims = await board.claim(2500)
        assert list(range(2500)) == [claim.task.payload for claim in claims]
        assert (0, 500, 2500, 0, 0) == await counts(board)


async def test_limit_0_only_sweeps(place: Place) -> None:
    """Lapsed leases are taken back and due tasks are ready, but nothing is claimed."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a"), Task(0, delay=20.0)])
        await board.claim(1, lease=10.0)
        assert (1, 0, 1, 0, 0) == await counts(board)
        await bench.later(30)
        assert (1, 0, 1, 0, 0) == await counts(board)
        assert [] == await board.claim(0)
        assert (0, 2, 0, 0, 0) == await counts(board)


async def test_tokens_grow_and_never_repeat(place: Place) -> None:
    """Tokens grow across claims, handles and attempts of one task."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        await board.submit([Task(n) for n in range(10)])
        tokens: list[int] = []
        for _ in range(3):
            for handle in (board, other):
                claims = await handle.claim(7)
                tokens += [claim.token for claim in claims]
                await handle.settle([claim.release() for claim in claims])
        assert 42 == len(tokens)
        assert sorted(set(tokens)) == tokens


async def test_claim_by_ids(place: Place) -> None:
    """Only ready tasks with these ids are claimed."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abcdef"])
        await board.submit(Task(0, id="later", delay=100.0))
        (held,) = await board.claim(1, ids=["c"])
        claims = await board.claim(10, ids=["e", "c", "a", "none", "later"])
        assert ["e", "a"] == [claim.task.id for claim in claims]
        assert held.token < claims[0].token < claims[1].token
        assert [*"bdf"] == await order(board)


async def test_claim_by_ids_has_a_limit_too(place: Place) -> None:
    """The first ready ones of the ids are claimed."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abcd"])
        claims = await board.claim(2, ids=["none", "d", "b", "a"])
        assert ["d", "b"] == [claim.task.id for claim in claims]
        assert [] == await board.claim(0, ids=["a"])
        assert [] == await board.claim(5, ids=[])
        assert (0, 2, 2, 0, 0) == await counts(board)


async def test_claim_by_the_same_id_twice(place: Place) -> None:
    """There is one claim, whether one call repeats the id or two calls name it."""
    async with place.bench() as bench:
        board, other = bench.board(), bench.elsewhere()
        await board.submit([Task(0, id="a"), Task(0, id="b")])
        assert 1 == len(await board.claim(5, ids=["a", "a"]))
        found = await asyncio.gather(*(h.claim(1, ids=["b"]) for h in (board, other, board)))
        assert 1 == sum(map(len, found))


async def test_claim_by_many_ids(place: Place) -> None:
    """More ids than fit one chunk can be claimed."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=f"{n}") for n in range(2200)])
        wanted = [f"{n}" for n in range(2300, -1, -1)]
        claims = await board.claim(2250, ids=wanted)
        assert wanted[101:] == [claim.task.id for claim in claims]


async def test_claim_by_ids_sweeps(place: Place) -> None:
    """A claim by id sweeps first, so it gets a task whose worker died."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (old,) = await board.claim(1, lease=10.0)
        await bench.later(20)
        (new,) = await bench.elsewhere().claim(1, ids=["a"])
        assert new.token > old.token
        assert (1, 1) == (new.attempt, new.crashes)


async def test_large_payloads(place: Place) -> None:
    """One call claims 50 tasks of 900 kB, more than one reply can hold."""
    async with place.bench() as bench:
        board = bench.board()
        payload = b"x" * 900_000
        await board.submit([Task(payload, id=f"{n}") for n in range(50)])
        claims = await board.claim(1000)
        assert [f"{n}" for n in range(50)] == [claim.task.id for claim in claims]
        assert all(claim.task.payload == payload for claim in claims)
        await board.settle([claim.done() for claim in claims])
        assert (0, 0, 0, 50, 0) == await counts(board)


async def test_one_large_among_small_ones(place: Place) -> None:
    """A payload of exactly 1 MiB passes, and so do its neighbours."""
    async with place.bench() as bench:
        board = bench.board()
        large = "x" * (1024 * 1024 - 5)
        await board.submit([Task(large if n % 7 == 0 else "small") for n in range(100)])
        claims = await board.claim(100)
        assert 100 == len(claims)
        assert 15 == sum(claim.task.payload == large for claim in claims)


@pytest.mark.parametrize("rounds", [0, 1, 2, 5])
async def test_a_cancelled_claim_gives_back(place: Place, rounds: int) -> None:
    """Whenever the call is cancelled, no task stays claimed and nothing is counted."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abc"])
        claiming = asyncio.create_task(board.claim(2))
        for _ in range(rounds):
            await asyncio.sleep(0)
        claiming.cancel()
        results = await asyncio.gather(claiming, return_exceptions=True)
        await board._intakes.finished()
        if not isinstance(results[0], BaseException):
            await board.settle([claim.release() for claim in results[0]])
        assert (0, 3, 0, 0, 0) == await counts(board)
        assert [*"abc"] == await order(board)
        state = await board.get("a")
        assert state is not None
        assert (0, 0) == (state.attempts, state.crashes)
