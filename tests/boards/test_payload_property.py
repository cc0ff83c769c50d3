"""Whatever a board accepts can be claimed, decoded and read."""

from __future__ import annotations

import asyncio
import enum
from collections import namedtuple
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import attrs
import msgspec
import pydantic
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.errors import CodecError
from rxdispatch.payload_rules import maybe_nested, openers_of
from rxdispatch.task import Task
from rxdispatch.testing import run_virtual


@dataclass(frozen=True)
class Data:
    """A key that is written as a map."""

    a: Any


@attrs.frozen
class Attrs:
    """Another key that is written as a map."""

    a: Any


class Struct(msgspec.Struct, frozen=True):
    """Another key that is written as a map."""

    a: Any


class Row(msgspec.Struct, frozen=True, array_like=True):
    """A key that is written as an array."""

    a: Any


class Model(pydantic.BaseModel):
    """A model that may be a key."""

    model_config = pydantic.ConfigDict(frozen=True)

    a: int | str | tuple[int, ...]


class Mark(enum.Enum):
    """Values that may be keys."""

    ONE = 1
    TWO = "two"


Named = namedtuple("Named", "a b")  # noqa: PYI024 # pyright: ignore[reportUntypedNamedTuple]

atoms: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.characters(),
    st.binary(max_size=5),
    st.datetimes(timezones=st.one_of(st.none(), st.timezones())),
    st.dates(),
    st.times(),
    st.timedeltas(),
    st.uuids(),
    st.decimals(),
    st.complex_numbers(),
    st.sampled_from(Mark),
    st.builds(PurePosixPath, st.text(max_size=3)),
    st.builds(Model, a=st.integers() | st.text(max_size=3)),
)


def hashable(value: Any) -> bool:
    """Whether *value* can be a key."""
    try:
        hash(value)
    except TypeError:
        return False
    return True


values: st.SearchStrategy[Any] = st.deferred(lambda: atoms | keys | holders)
"""Atoms, containers that may be keys if all their items may, and other containers."""
keys: st.SearchStrategy[Any] = st.one_of(
    st.tuples(values, values),
    st.frozensets(values.filter(hashable), max_size=2),
    st.builds(Data, values),
    st.builds(Attrs, values),
    st.builds(Struct, values),
    st.builds(Row, values),
    st.builds(Named, values, values),
)
holders: st.SearchStrategy[Any] = st.one_of(
    st.lists(values, max_size=3),
    st.dictionaries((atoms | keys).filter(hashable), values, max_size=3),
)


@given(payload=values)
@example(payload={Data(1): "x"})
@example(payload={"a": 1, Struct(1): "x"})
@example(payload={(1, Attrs(2)): "x"})
@example(payload=[{Model(a=1): "x"}])  # pyright: ignore[reportUnhashable]
@example(payload=Data({Data(1): 2}))
def test_what_is_accepted_can_be_read(payload: Any) -> None:
    """A payload is refused by submit or comes back; its task never dies as ``undecodable``."""

    async def life() -> None:
        board: MemoryBoard[Any] = MemoryBoard("b")
        try:
            await board.submit(Task(payload, id="a"))
        except CodecError:
            assert 0 == (await board.counts()).ready
            return
        claims = await board.claim(1)
        assert ["a"] == [claim.task.id for claim in claims]
        # The decoded payload consists of plain types, and can be submitted again.
        await board.submit(Task(claims[0].task.payload, id="b"))
        (claim,) = await board.claim(1)
        assert repr(claims[0].task.payload) == repr(claim.task.payload)

    run_virtual(life())


NESTED: list[Any] = [{"a": {"b": 1}}, [{"a": 1}, {"b": 2}], {f"{n}": {} for n in range(20)}]


@pytest.mark.parametrize("payload", NESTED)
def test_mappings_in_mappings(payload: Any) -> None:
    """Nested mappings are checked more closely, and accepted."""
    assert maybe_nested(openers_of(msgspec.msgpack.encode(payload)))

    async def life() -> Any:
        board: MemoryBoard[Any] = MemoryBoard("b")
        await board.submit(Task(payload))
        return (await board.claim(1))[0].task.payload

    assert payload == asyncio.run(life())


@pytest.mark.parametrize("payload", [{}, {"a": 1}, {"a": [1, "b"]}, {1: "x"}, [1, 2]])
def test_most_mappings(payload: Any) -> None:
    """Most mappings need no closer check."""
    assert not maybe_nested(openers_of(msgspec.msgpack.encode(payload)))
