"""Types of payloads that msgspec leaves to its hooks: pydantic models and paths."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import PurePath
from typing import Any, Final

import msgspec

from rxdispatch.errors import ConfigError

__all__ = ["decode_hook", "encode_hook", "require_decodable"]

_PLAIN: Final = (type(None), bool, int, float, str, bytes, list, dict, datetime)
"""The types of values that are decoded without a type."""


def encode_hook(value: Any) -> Any:
    """
    Return a plain value for a value whose type msgspec does not know.

    Raises:
        TypeError: If there is none.
    """
    if _is_model(type(value)):
        return value.model_dump(mode="json", by_alias=True, round_trip=True)
    if isinstance(value, PurePath):
        return str(value)
    raise TypeError(f"Encoding objects of type {type(value).__name__} is unsupported")


def decode_hook(kind: Any, value: Any) -> Any:
    """
    Convert *value*, which was decoded without a type, to a *kind* that msgspec does not know.

    Raises:
        ValueError: If it cannot be converted.
    """
    if _is_model(kind):
        # As JSON, so that strict models accept values whose JSON form is text.
        packed = msgspec.json.encode(value)
        try:
            return kind.model_validate_json(packed)
        except ValueError as error:
            # pydantic's text quotes the payload, which must not reach the logs.
            raise ValueError(_misfits(error)) from None
    if issubclass(kind, PurePath):
        if not isinstance(value, str):
            raise ValueError(f"Expected `str` for a path, got `{type(value).__name__}`")
        return kind(value)
    return value  # msgspec checks that it is an instance


def require_decodable(what: str, kind: Any) -> None:
    """
    Refuse a type that cannot be decoded.

    Raises:
        ConfigError: If *kind* is or contains such a type.
    """
    rule = f"{what} must be a type that msgspec can decode"
    try:
        info = msgspec.inspect.type_info(kind)
    except Exception as error:  # annotations are the user's code
        raise ConfigError(rule, kind) from error
    for found in _inside(info, set()):
        if isinstance(found, msgspec.inspect.ExtType) or (
            isinstance(found, msgspec.inspect.CustomType) and not _is_known(found.cls)
        ):
            cls = getattr(found, "cls", found)
            name = getattr(cls, "__qualname__", repr(cls))
            raise ConfigError(f"{rule}, or a pydantic model, which {name} is not", kind)


def _is_known(kind: Any) -> bool:
    if not isinstance(kind, type):
        return False
    if _is_model(kind) or issubclass(kind, PurePath):
        return True
    try:
        # True for object, and for abstract base classes of plain values.
        return any(issubclass(plain, kind) for plain in _PLAIN)
    except TypeError:  # a protocol without runtime checks
        return False


def _is_model(kind: Any) -> bool:
    # By attributes, as pydantic is not a dependency.
    return hasattr(kind, "__pydantic_validator__") and hasattr(kind, "model_validate_json")


def _misfits(error: Any) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(".".join(map(str, (*each["loc"], each["msg"]))) for each in found)


def _inside(info: Any, seen: set[int]) -> Iterator[msgspec.inspect.Type]:
    """Yield a type and all types inside it, each once."""
    if isinstance(info, tuple):
        for part in info:  # pyright: ignore[reportUnknownVariableType]
            yield from _inside(part, seen)
    elif isinstance(info, (msgspec.inspect.Type, msgspec.inspect.Field)) and id(info) not in seen:
        seen.add(id(info))
        if isinstance(info, msgspec.inspect.Type):
            yield info
        for name in info.__struct_fields__:
            yield from _inside(getattr(info, name), seen)
