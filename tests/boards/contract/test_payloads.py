"""Payloads: which can be stored, and which types they are decoded into."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import attrs
import msgspec

from rxdispatch.task import Task
from tests.boards.places import Place, counts


@attrs.frozen
class Job:
    """An attrs payload."""

    path: str
    sizes: tuple[int, ...] = ()


@dataclass
class Data:
    """A dataclass payload."""

    x: int


class Struct(msgspec.Struct):
    """A msgspec payload."""

    y: str


PLAIN: list[Any] = [
    None,
    True,
    0,
    -(2**63),
    2**64 - 1,
    1.5,
    -0.0,
    "",
    "ü\x00\U0001f600",
    b"",
    bytes(range(256)),
    [],
    {},
    [1, [2, [3]]],
    {"a": {"b": [None]}},
    {1: "int keys", b"b": "bytes keys"},
    datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
    "x" * 100_000,
    [0.5] * 1000,
    "\u00c7\u00c8\u00d4" * 100,
]


async def test_plain_values(place: Place) -> None:
    """Plain values come back unchanged and in order."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(value) for value in PLAIN])
        assert PLAIN == [claim.task.payload for claim in await board.claim(100)]


async def test_typed_payloads(place: Place) -> None:
    """A handle with ``payload=`` decodes into that type; other handles return plain values."""
    for kind, value, plain in (
        (Job, Job("a.py", (1, 2)), {"path": "a.py", "sizes": [1, 2]}),
        (Data, Data(5), {"x": 5}),
        (Struct, Struct("z"), {"y": "z"}),
        (int, 7, 7),
    ):
        async with place.bench() as bench:
            typed: Any = kind
            await bench.board().submit(Task(value, id="a"))
            (claim,) = await bench.elsewhere(payload=typed).claim(1)
            assert value == claim.task.payload
            assert type(value) is type(claim.task.payload)
            await bench.elsewhere().settle([claim.release()])
            (claim,) = await bench.board().claim(1)
            assert plain == claim.task.payload


async def test_a_payload_of_another_type(place: Place) -> None:
    """The task is dead, ``undecodable``; its neighbours are delivered."""
    async with place.bench() as bench:
        plain, typed = bench.board(), bench.elsewhere(payload=int)
        await plain.submit([Task(p, id=f"{n}") for n, p in enumerate([1, "two", 3, [4], 5])])
        claims = await typed.claim(3)
        assert [1, 3, 5] == [claim.task.payload for claim in claims]
        await typed._intakes.finished()
        assert (0, 0, 3, 0, 2) == await counts(plain)
        letters = [letter async for letter in plain.dead_letters()]
        assert [("1", "two", "undecodable"), ("3", [4], "undecodable")] == [
            (letter.task.id, letter.task.payload, letter.reason) for letter in letters
        ]
        assert "Expected `int`" in letters[0].error
        # A payload that cannot be decoded is returned as it is stored.
        assert [bytes] * 2 == [type(x.task.payload) async for x in typed.dead_letters()]
        assert 2 == await plain.redrive()
        assert ["two", [4]] == [claim.task.payload for claim in await plain.claim(5)]


async def test_bytes_that_are_no_task(server: Place) -> None:
    """Claiming goes on, whatever bytes are stored."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(n, id=f"{n}") for n in range(5)])
        for task_id, junk in (("1", b""), ("2", b"\xc1\xff"), ("3", b"\x92\x01")):
            await bench.hub.client.call("spoil", "HSET", bench.key("tasks"), task_id, junk)
        assert [0, 4] == [claim.task.payload for claim in await board.claim(5)]
        await board._intakes.finished()
        letters = [letter async for letter in board.dead_letters()]
        assert [("1", b""), ("2", b"\xc1\xff"), ("3", b"\x92\x01")] == [
            (letter.task.id, letter.task.payload) for letter in letters
        ]
        assert (0, 0, 2, 0, 3) == await counts(board)


async def test_a_kind_before_bytes_that_are_no_task(server: Place) -> None:
    """The dead letter has the kind and the stored bytes."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="1", kind="x"), Task(0, id="2", kind="x")])
        for task_id, junk in (("1", b"\0\1x\xc1"), ("2", b"\0\1x")):
            await bench.hub.client.call("spoil", "HSET", bench.key("tasks"), task_id, junk)
        assert [] == await board.claim(5)
        await board._intakes.finished()
        letters = [letter async for letter in board.dead_letters()]
        assert [("1", "x", b"\xc1"), ("2", "x", b"")] == [
            (letter.task.id, letter.task.kind, letter.task.payload) for letter in letters
        ]
        assert {} == await board.kinds()


async def test_an_undecodable_only_one(place: Place) -> None:
    """A claim that finds undecodable tasks first brings the tasks after them."""
    async with place.bench() as bench:
        await bench.board().submit([Task("x"), Task(1)])
        typed = bench.elsewhere(payload=int)
        assert [1] == [claim.task.payload for claim in await typed.claim(1)]
        await typed._intakes.finished()


async def test_payloads_are_copies(place: Place) -> None:
    """Workers do not see later changes to the sender's object."""
    async with place.bench() as bench:
        board = bench.board()
        payload = {"n": [1]}
        await board.submit(Task(payload))
        payload["n"].append(2)
        (claim,) = await board.claim(1)
        assert {"n": [1]} == claim.task.payload
