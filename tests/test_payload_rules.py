"""Payloads must be finite, not too deep, and without extension types."""

from __future__ import annotations

import math
import struct
from contextlib import suppress
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxdispatch.errors import CodecError
from rxdispatch.payload_rules import DEPTH_LIMIT, check_payload, maybe_unsafe, too_deep

encode = msgspec.msgpack.encode

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
    | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abc"), inner, max_size=4),
    max_leaves=10,
)


def nested(depth: int) -> bytes:
    """Return nested lists."""
    return b"\x91" * depth + b"\x01"


def finite(value: Any) -> bool:
    """Return whether all numbers in *value* are finite."""
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(finite(item) for item in cast("dict[str, Any]", value).values())
    return not isinstance(value, list) or all(map(finite, cast("Any", value)))


@given(values)
def test_what_is_plain(value: Any) -> None:
    """Finite numbers pass and others never do; the quick test lets nothing bad through."""
    packed = encode(value)
    if finite(value):
        check_payload("value", packed)
    else:
        assert maybe_unsafe(packed)
        with pytest.raises(CodecError, match=r"^value must hold finite numbers, got"):
            check_payload("value", packed)


@given(st.binary(max_size=60))
def test_any_bytes(packed: bytes) -> None:
    """Arbitrary bytes raise nothing but a CodecError."""
    with suppress(CodecError):
        check_payload("value", packed)


@pytest.mark.parametrize("form", ["list", "mapping", "both"])
def test_depth(form: str) -> None:
    """A hundred levels are the most; the quick test notices that there may be more."""
    opener = {"list": b"\x91", "mapping": b"\x81\xa1x", "both": b"\x91\x81\xa1x"}[form]
    layers = DEPTH_LIMIT // (2 if form == "both" else 1)
    check_payload("value", opener * layers + b"\x01")
    for deep in (opener * layers + b"\x91\x01", opener * 50_000 + b"\x01"):
        assert maybe_unsafe(deep)
        with pytest.raises(CodecError, match=r"^value must be nested at most 100 deep$"):
            check_payload("value", deep)


@pytest.mark.parametrize("size", [1, 2, 4, 8, 16, 17, 300, 70_000])
def test_extension_types(size: int) -> None:
    """Extension types of any size are refused at any depth."""
    packed = encode([{"x": msgspec.msgpack.Ext(5, b"\0" * size)}])
    assert maybe_unsafe(packed)
    with pytest.raises(CodecError, match="extension type 5 is not allowed"):
        check_payload("value", packed)


@pytest.mark.parametrize("number", ["nan", "inf", "-inf"])
def test_numbers_of_both_sizes(number: str) -> None:
    """Numbers of four bytes, which other clients may write, are checked too."""
    for packed in (
        b"\xcb" + struct.pack(">d", float(number)),
        b"\xca" + struct.pack(">f", float(number)),
    ):
        assert maybe_unsafe(packed)
        with pytest.raises(CodecError, match="finite"):
            check_payload("value", packed)


def test_ordinary_values_are_quick() -> None:
    """The quick test passes ordinary values, so that no thorough check is needed."""
    for value in (None, 5, "text" * 999, {"load": 0.5, "tags": ["a", "b"]}, [1] * 2000):
        assert not maybe_unsafe(encode(value))


def test_whose_it_is() -> None:
    """The error names the task."""
    with pytest.raises(CodecError, match=r"^task 'a': value must hold finite") as caught:
        check_payload("value", encode(math.nan), task_id="a")
    assert "a" == caught.value.task_id
    assert "task 'a': value must be nested at most 100 deep" == str(too_deep("value", task_id="a"))
