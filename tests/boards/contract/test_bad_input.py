"""Bad input raises an error that states the rule, before anything changes."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from rxdispatch.boards.base import Board
from rxdispatch.errors import CodecError, ConfigError
from rxdispatch.task import Task
from tests.boards.places import Place, counts

AnyBoard = Board[Any]


class Opaque:
    """A payload that msgspec cannot encode."""


def nested(depth: int) -> Any:
    """Return nested lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def endless() -> list[Any]:
    """Return a list that contains itself."""
    value: list[Any] = []
    value.append(value)
    return value


UNFIT: dict[str, tuple[Any, str]] = {
    "too large": (b"x" * (1024 * 1024 + 1), "payload must be at most 1048576 bytes, got 10485"),
    "too large inside": ({"a": ["x" * 2**20]}, "payload must be at most 1048576 bytes, got "),
    "too deep": (nested(101), "payload must be nested at most 100 deep"),
    "much too deep": (nested(50_000), "payload must be nested at most 100 deep"),
    "endless": (endless(), "payload must be nested at most 100 deep"),
    "nan": (math.nan, "payload must hold finite numbers, got nan"),
    "infinity": ({"a": [1, {"b": math.inf}]}, "payload must hold finite numbers, got inf"),
    "minus infinity": ((1.0, -math.inf), "payload must hold finite numbers, got -inf"),
    "nan as a key": ({math.nan: 1}, "payload must hold finite numbers, got nan"),
    "no type of ours": (Opaque(), "payload must be encodable"),
    "a function": ([print], "payload must be encodable"),
    "a large int": (2**64, "payload must be encodable"),
    "a lone surrogate": ("\ud800", "payload must be encodable"),
}


@pytest.mark.parametrize("what", UNFIT)
async def test_payloads_that_cannot_be_stored(place: Place, what: str) -> None:
    """The error names the rule and the task; good tasks of the same call are not added either."""
    payload, message = UNFIT[what]
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="there"))
        with pytest.raises(CodecError) as caught:
            await board.submit([Task(0, id="good"), Task(payload, id="bad"), Task(0)])
        assert str(caught.value).startswith(f"task 'bad': {message}")
        assert "bad" == caught.value.task_id
        assert isinstance(caught.value, ValueError)
        assert len(str(caught.value)) < 500
        assert (0, 1, 0, 0, 0) == await counts(board)


async def test_what_just_fits(place: Place) -> None:
    """Values exactly at the limits are allowed."""
    async with place.bench() as bench:
        board = bench.board()
        largest = b"x" * (1024 * 1024 - 5)
        await board.submit([Task(largest), Task(nested(100)), Task(1.7976931348623157e308)])
        assert [largest, nested(100), 1.7976931348623157e308] == [
            claim.task.payload for claim in await board.claim(3)
        ]


async def test_the_largest_kind_and_headers(place: Place) -> None:
    """The largest kind and headers fit beside the largest payload."""
    async with place.bench() as bench:
        board = bench.board()
        payload = b"x" * (1024 * 1024 - 5)
        task = Task(payload, kind="ü" * 200, headers={"h": "x" * (64 * 1024 - 1)})
        await board.submit(task)
        assert [task] == [claim.task for claim in await board.claim(1)]


@pytest.mark.parametrize("bad", ["x" * 1025, "ü" * 513])
async def test_ids_that_are_too_long(place: Place, bad: str) -> None:
    """Every call refuses them, and does nothing for the other ids either."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="good"), Task(0, id="dead")])
        await board.cancel("dead")
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: board.submit([Task(0), Task.trusted(0, bad)]),
            lambda: board.claim(1, ids=["good", bad]),
            lambda: board.get(bad),
            lambda: board.cancel(["good", bad]),
            lambda: board.redrive(["dead", bad]),
        ]
        for call in calls:
            with pytest.raises(ConfigError, match=r"^id must be at most 1024 bytes in UTF-8, got"):
                await call()
        assert (0, 1, 0, 0, 1) == await counts(board)


async def test_a_bad_one_in_a_later_chunk(place: Place) -> None:
    """All tasks are checked before the first chunk is written."""
    async with place.bench() as bench:
        board = bench.board()
        with pytest.raises(CodecError, match=r"finite"):
            await board.submit([*(Task(n) for n in range(1500)), Task(math.nan)])
        assert (0, 0, 0, 0, 0) == await counts(board)


@pytest.mark.parametrize("bad", ["\ud800", "a\udc41", "\udcc3\udcbc"])
async def test_ids_that_no_bytes_stand_for(place: Place, bad: str) -> None:
    """Ids with surrogates that ``os.fsdecode`` never makes are refused."""
    async with place.bench() as bench:
        board = bench.board()
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: board.submit([Task(0, id="good"), Task(0, id=bad)]),
            lambda: board.claim(1, ids=[bad]),
            lambda: board.get(bad),
            lambda: board.cancel(["good", bad]),
            lambda: board.redrive(["good", bad]),
        ]
        for call in calls:
            with pytest.raises(ConfigError, match=r"^id must be encodable as UTF-8, got"):
                await call()
        assert (0, 0, 0, 0, 0) == await counts(board)


CALLS: dict[str, tuple[Callable[[AnyBoard], Awaitable[Any]], str]] = {
    "submit None": (lambda b: b.submit(_any(None)), "tasks must be a Task or an iterable"),
    "submit int": (lambda b: b.submit(_any(5)), "tasks must be a Task or an iterable"),
    "submit str": (lambda b: b.submit(_any("abc")), "tasks must be a Task or an iterable"),
    "submit bytes": (lambda b: b.submit(_any(b"abc")), "tasks must be .* a payload goes into"),
    "submit dict": (
        lambda b: b.submit(_any({"a": 1})),
        r"tasks must be .*, as Task\(payload\), got {'a': 1}",
    ),
    "submit dicts": (lambda b: b.submit(_any([{"a": 1}])), "tasks must be .*Task objects, got {'a"),
    "submit strs": (lambda b: b.submit(_any([Task(0), "x"])), "tasks must be .*Task objects.*'x'"),
    "claim -1": (lambda b: b.claim(-1), "limit must be an int >= 0, got -1"),
    "claim float": (lambda b: b.claim(_any(1.0)), "limit must be an int >= 0, got 1.0"),
    "claim True": (lambda b: b.claim(True), "limit must be an int >= 0, got True"),
    "claim None": (lambda b: b.claim(_any(None)), "limit must be an int >= 0, got None"),
    "lease 0": (lambda b: b.claim(1, lease=0), "lease must be a finite number .* > 0, got 0"),
    "lease -1": (lambda b: b.claim(1, lease=-1.0), "lease must be .* got -1.0"),
    "lease nan": (lambda b: b.claim(1, lease=math.nan), "lease must be .* got nan"),
    "lease inf": (lambda b: b.claim(1, lease=math.inf), "lease must be .* got inf"),
    "lease str": (lambda b: b.claim(1, lease=_any("9")), "lease must be .* got '9'"),
    "worker int": (lambda b: b.claim(1, worker=_any(5)), "worker must be a str of at most 200"),
    "worker long": (lambda b: b.claim(1, worker="x" * 201), "worker must be a str of at most 200"),
    "claim id": (lambda b: b.claim(1, ids=["a", _any(5)]), "id must be a str .* got 5"),
    "claim no id": (lambda b: b.claim(1, ids=[""]), "id must be a str that is not empty, got ''"),
    "claim ids": (lambda b: b.claim(1, ids=_any(5)), "ids must be .* got 5"),
    "renew lease": (lambda b: b.renew([], -1.0), "lease must be .* got -1.0"),
    "renew other": (lambda b: b.renew([_any("x")], 1.0), "claims must come from a board, got 'x'"),
    "renew int": (lambda b: b.renew(_any(5), 1.0), "claims must .* got 5"),
    "settle other": (lambda b: b.settle([_any("x")]), "settlements must come from .* got 'x'"),
    "settle int": (lambda b: b.settle(_any(5)), "settlements must .* got 5"),
    "get int": (lambda b: b.get(_any(5)), "id must be a str that is not empty, got 5"),
    "get nothing": (lambda b: b.get(""), "id must be a str that is not empty, got ''"),
    "cancel int": (lambda b: b.cancel(_any(5)), "ids must be .* got 5"),
    "cancel ints": (lambda b: b.cancel(["a", _any(5)]), "id must be a str .* got 5"),
    "cancel bytes": (lambda b: b.cancel([_any(b"a")]), "id must be a str .* got b'a'"),
    "redrive int": (lambda b: b.redrive(_any(5)), "ids must be .* got 5"),
    "redrive nothing": (lambda b: b.redrive(["a", ""]), "id must be a str .* got ''"),
}


def _any(value: Any) -> Any:
    return value


@pytest.mark.parametrize("what", CALLS)
async def test_bad_arguments(place: Place, what: str) -> None:
    """Each bad argument raises a ``ConfigError`` that states the rule and the value."""
    call, message = CALLS[what]
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="a"), Task(0, id="b")])
        await board.cancel("b")
        with pytest.raises(ConfigError, match=rf"^{message}") as caught:
            await call(board)
        assert isinstance(caught.value, ValueError)
        assert (0, 1, 0, 0, 1) == await counts(board)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefetch": 0}, "prefetch must be an int >= 1, got 0"),
        ({"prefetch": 1.5}, "prefetch must be an int >= 1, got 1.5"),
        ({"lease": 0.0}, "lease must be a finite number of seconds > 0, got 0.0"),
        ({"lease": math.nan}, "lease must be a finite number of seconds > 0, got nan"),
        ({"worker": 5}, "worker must be a str of at most 200 characters, got 5"),
        ({"until": "done"}, "until must be 'never', 'idle' or 'joined', got 'done'"),
        ({"until": None}, "until must be 'never', 'idle' or 'joined', got None"),
        ({"until": []}, "until must be 'never', 'idle' or 'joined', got []"),
    ],
)
async def test_bad_arguments_of_claims(place: Place, options: dict[str, Any], message: str) -> None:
    """Bad arguments are refused when the observable is made, not when it is subscribed to."""
    async with place.bench() as bench:
        with pytest.raises(ConfigError, match=rf"^{re.escape(message)}$"):
            bench.board().claims(**options)


async def test_settlements_of_another_board(place: Place) -> None:
    """A settlement of another board is refused, and the whole call with it."""
    async with place.bench() as bench:
        board, stranger = bench.board(), bench.another(f"{bench.name}-2")
        for each in (board, stranger):
            await each.submit(Task(0, id="a"))
        (mine,), (other,) = await board.claim(1), await stranger.claim(1)
        with pytest.raises(ConfigError, match=r"^settlements must be of claims of board"):
            await board.settle([mine.done(), other.done()])
        with pytest.raises(ConfigError, match=r"^claims must be of board"):
            await board.renew([mine, other], 30.0)
        assert (0, 0, 1, 0, 0) == await counts(board)
        assert (0, 0, 1, 0, 0) == await counts(stranger)
        assert [True] == await board.settle([mine.done()])


async def test_bad_arguments_of_settlements(place: Place) -> None:
    """Bad arguments are refused when the settlement is made."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        for bad in (-1.0, math.nan, math.inf, _any("1")):
            with pytest.raises(ConfigError, match=r"^delay must be a finite number"):
                claim.retry("no", delay=bad)
            with pytest.raises(ConfigError, match=r"^delay must be a finite number"):
                claim.release(bad)
        for reason in ("", _any(None), _any(5)):
            with pytest.raises(ConfigError, match=r"^reason must be a str that is not empty"):
                claim.dead(reason)
        for error in (_any(None), _any(5)):
            with pytest.raises(ConfigError, match=r"^error must be an exception or a str"):
                claim.retry(error)
        assert [True] == await board.settle([claim.done()])


async def test_ids_from_any_iterable(place: Place) -> None:
    """A generator of ids works like a list."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id=i) for i in "abc"])
        assert 2 == len(await board.claim(5, ids=_any(i for i in "ab")))
        assert [True] == await board.cancel(i for i in "c")
        assert 1 == await board.redrive(i for i in "c")
