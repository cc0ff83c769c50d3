"""Types of payloads: pydantic models and paths work; other types are refused at once."""

from __future__ import annotations

import decimal
import enum
import uuid
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Protocol, TypedDict

import attrs
import msgspec
import pydantic
import pytest
from structlog.testing import capture_logs

from rxdispatch.errors import CodecError, ConfigError
from rxdispatch.task import Status, Task
from tests.boards.places import Place, counts


class Order(pydantic.BaseModel):
    """A pydantic model."""

    model_config = pydantic.ConfigDict(frozen=True)

    id: int
    price: Decimal = Decimal("1.50")
    at: datetime | None = None
    tags: tuple[str, ...] = ()


class Strict(pydantic.BaseModel):
    """A strict model with an alias for a field."""

    model_config = pydantic.ConfigDict(strict=True)

    key: uuid.UUID = pydantic.Field(alias="the key")
    days: dict[int, date]


class Broken(pydantic.BaseModel):
    """A model that cannot be serialized."""

    id: int

    @pydantic.field_serializer("id")
    def fail(self, value: int) -> int:
        """Raise an error whose own methods raise."""
        raise HostileError(value)


class HostileError(Exception):
    """An error whose own methods raise."""

    def __str__(self) -> str:
        raise KeyError("code")


class Colour(enum.Enum):
    """An enum."""

    RED = "red"


@attrs.frozen
class Parcel:
    """An attrs class with models and paths inside."""

    order: Order
    label: Path
    more: list[Order] = attrs.Factory(list[Order])


@dataclass
class Typed:
    """Types that msgspec supports."""

    price: Decimal
    key: uuid.UUID
    at: datetime
    day: date
    wait: timedelta
    colour: Colour


class Node(msgspec.Struct):
    """A type that contains itself."""

    name: str
    below: list[Node] = []


class Pair(NamedTuple):
    """A tuple with a model."""

    first: Order
    second: int


class Table(TypedDict):
    """A dict with a model."""

    order: Order


ORDER = Order(id=7, at=datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC), tags=("a", "ü"))
STRICT = Strict.model_validate({"the key": uuid.UUID(int=5), "days": {1: date(2026, 1, 2)}})
TYPED = Typed(
    Decimal("0.10"),
    uuid.UUID(int=3),
    datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC),
    date(2026, 1, 2),
    timedelta(days=2, microseconds=5),
    Colour.RED,
)
GOOD: list[tuple[Any, Any]] = [
    (Order, ORDER),
    (Strict, STRICT),
    (list[Order], [ORDER, Order(id=8)]),
    (dict[str, Order], {"a": ORDER}),
    (Order | None, None),
    (Parcel, Parcel(ORDER, Path("/a/b.py"), [Order(id=9)])),
    (Pair, Pair(ORDER, 2)),
    (Table, {"order": ORDER}),
    (Path, Path("a b/ü")),
    (PurePosixPath, PurePosixPath("/x")),
    (Typed, TYPED),
    (Node, Node("a", [Node("b")])),
    (object, {"a": [1]}),
    (Hashable, "a"),
]


@pytest.mark.parametrize(("kind", "value"), GOOD, ids=range(len(GOOD)))
async def test_types_that_work(place: Place, kind: Any, value: Any) -> None:
    """A payload comes back equal and of the same type."""
    async with place.bench() as bench:
        await bench.board().submit(Task(value, id="a"))
        (claim,) = await bench.elsewhere(payload=kind).claim(1)
        assert value == claim.task.payload
        assert type(value) is type(claim.task.payload)


async def test_a_model_without_its_type(place: Place) -> None:
    """Without a type, a model comes back as the plain values of its JSON form."""
    async with place.bench() as bench:
        board = bench.board()
        await board.submit(Task(STRICT))
        (claim,) = await board.claim(1)
        assert {
            "the key": "00000000-0000-0000-0000-000000000005",
            "days": {"1": "2026-01-02"},
        } == claim.task.payload


async def test_a_payload_that_does_not_fit_a_model(place: Place) -> None:
    """The task dies with the model's message; no value of the payload is logged or kept."""
    async with place.bench() as bench:
        board = bench.board(payload=Order)
        await board.submit([Task({"id": "card 4711"}, id="a"), Task({"id": 1}, id="b")])
        with capture_logs() as logs:
            assert [Order(id=1)] == [claim.task.payload for claim in await board.claim(2)]
            await board._intakes.finished()
        (letter,) = [letter async for letter in board.dead_letters()]
        assert "undecodable" == letter.reason
        assert "id.Input should be a valid integer" in letter.error
        assert "task_undecodable" == logs[0]["event"]
        assert "4711" not in f"{logs}{letter.error}{letter.traceback}"


async def test_a_model_that_cannot_be_written(place: Place) -> None:
    """The error is a CodecError, whatever its serializers raise."""
    async with place.bench() as bench:
        board = bench.board()
        with pytest.raises(CodecError, match=r"task 'a': payload must be encodable") as caught:
            await board.submit(Task(Broken(id=1), id="a"))
        assert "a" == caught.value.task_id
        assert (0, 0, 0, 0, 0) == await counts(board)


class Opaque:
    """A type that cannot be decoded."""


@dataclass
class Holder:
    """A class with a field that cannot be decoded."""

    some: list[dict[str, Opaque | None]]


class Able(Protocol):
    """A protocol that cannot be checked at run time."""

    def run(self) -> None:
        """Run."""


@dataclass
class Misspelt:
    """A class with an annotation that names nothing that exists."""

    some: NoSuchType  # type: ignore[name-defined] # noqa: F821 # pyright: ignore[reportUndefinedVariable, reportUnknownVariableType]


BAD: list[tuple[Any, str]] = [
    (Opaque, "Opaque is not"),
    (Opaque | Order, ""),
    (int | Order, ""),
    (list[Opaque], "Opaque is not"),
    (Holder, "Opaque is not"),
    (Able, "Able is not"),
    (complex, "complex is not"),
    (Callable[[], int], ""),
    (msgspec.msgpack.Ext, "is not"),
    (decimal.Context, "Context is not"),
    (Misspelt, ""),
    ("Order", ""),
    (5, ""),
]


@pytest.mark.parametrize(("kind", "what"), BAD, ids=range(len(BAD)))
async def test_types_that_cannot_be_read(place: Place, kind: Any, what: str) -> None:
    """The type is refused when the handle is made; the error names the part that is to blame."""
    async with place.bench() as bench:
        with pytest.raises(ConfigError, match=rf"^payload must be a type that msgspec.*{what}"):
            bench.board(payload=kind)
        assert (0, 0, 0, 0, 0) == await counts(bench.board())


@dataclass(frozen=True)
class Key:
    """A type that can be a key only with a typed handle."""

    a: int


async def test_keys_that_only_a_type_can_read(place: Place) -> None:
    """A handle of that type accepts and returns them; other handles refuse them."""
    async with place.bench() as bench:
        payload, kind = {Key(1): "x"}, dict[Key, str]
        for other in (None, int, dict[str, str]):
            with pytest.raises(CodecError, match=r"task 'a': "):
                await bench.elsewhere(payload=other).submit(Task(payload, id="a"))
        board = bench.board(payload=kind)
        await board.submit(Task(payload, id="a"))
        assert [payload] == [claim.task.payload for claim in await board.claim(1)]


async def test_get_reads_no_payload(place: Place) -> None:
    """The state of a task does not depend on the handle's type."""
    async with place.bench() as bench:
        await bench.board().submit(
            [
                Task("an old message", id="plain"),
                Task("an old message", id="more", kind="k", delay=50.0),
            ]
        )
        typed = bench.elsewhere(payload=Order)
        for task_id, status in (("plain", Status.READY), ("more", Status.SCHEDULED)):
            state, same = await typed.get(task_id), await bench.board().get(task_id)
            assert state is not None
            assert state == same
            assert status == state.status
            assert state.created_at > 1.7e9


async def test_get_of_bytes_that_are_no_task(server: Place) -> None:
    """``get`` returns the other fields of the state."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        for junk in (b"", b"\xc1\xff", b"\x92\x01"):
            await bench.hub.client.call("spoil", "HSET", bench.key("tasks"), "a", junk)
            state = await board.get("a")
            assert state is not None
            assert (Status.READY, 0.0) == (state.status, state.created_at)
