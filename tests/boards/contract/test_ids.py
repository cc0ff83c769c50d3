"""Ids are stored literally, whatever characters they have."""

from __future__ import annotations

import os

import pytest

from rxdispatch.task import Status, Task
from tests.boards.places import Place, counts

IDS = [
    "plain",
    " ",
    "a b",
    "\x00",
    "a\x00b",
    "\n",
    "\r\n",
    "{a}",
    "}{",
    "*",
    "?[a-z]*",
    "\\",
    '"',
    "'; DROP",
    "%s %d %",
    "+inf",
    "-inf",
    "(1",
    "0",
    "-1",
    "1e5",
    "nan",
    "ü",
    "\U0001f600",
    os.fsdecode(b"\xff"),
    os.fsdecode(b"a\xfe\x00\xffb.py"),
    "x" * 1024,
    "ü" * 512,
    "\U0001f600" * 256,
    os.fsdecode(b"\xfe" * 1024),
    "rxd:board",
    "../../etc/passwd",
    "some",
    "all",
]


async def test_through_a_whole_life(place: Place) -> None:
    """Every call that takes or returns an id keeps all of these ids apart."""
    async with place.bench() as bench:
        board, other = bench.board(remember=60.0), bench.elsewhere()
        assert tuple(IDS) == (await board.submit([Task(0, id=i) for i in IDS])).accepted
        assert tuple(IDS) == (await other.submit([Task(0, id=i) for i in IDS])).duplicates
        claims = await other.claim(100)
        assert IDS == [claim.task.id for claim in claims]
        assert [True] * len(IDS) == await other.settle([c.retry("no", 0.0) for c in claims])
        claims = await board.claim(100, ids=IDS[::-1])
        assert IDS[::-1] == [claim.task.id for claim in claims]
        assert [] == await board.renew(claims, 30.0)
        assert [True] * len(IDS) == await board.settle([c.retry("no", 50.0) for c in claims])
        assert (len(IDS), 0, 0, 0, 0) == await counts(board)
        assert [True] * len(IDS) == await other.cancel(IDS)
        assert IDS == [letter.task.id async for letter in other.dead_letters()]
        assert len(IDS) == await board.redrive(IDS)
        claims = await other.claim(100, lease=10.0)
        assert IDS == [claim.task.id for claim in claims]
        await bench.later(20)
        claims = await board.claim(100, ids=IDS)
        assert IDS == [claim.task.id for claim in claims]
        await board.settle([claim.done() for claim in claims])
        states = [await board.get(i) for i in IDS]
        assert [Status.DONE] * len(IDS) == [state.status if state else None for state in states]
        assert IDS == [state.id if state else "" for state in states]


@pytest.mark.parametrize("task_id", IDS, ids=range(len(IDS)))
async def test_redrive_one(place: Place, task_id: str) -> None:
    """Each dead task can be redriven by its id alone."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=task_id), Task(0, id="other")])
        await board.cancel([task_id, "other"])
        assert 1 == await board.redrive(task_id)
        assert [task_id] == [claim.task.id for claim in await board.claim(5)]


async def test_ids_of_their_own(place: Place) -> None:
    """Tasks without an id get unique, growing ones."""
    async with place.bench() as bench:
        board = bench.board()
        result = await board.submit([Task(0) for _ in range(1000)])
        assert 1000 == len(set(result.accepted))
        assert sorted(result.accepted) == list(result.accepted)
