"""Rules for stored MessagePack: finite numbers, no deep nesting, no extension types."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Final, cast

import msgspec

from rxdispatch.errors import CodecError

__all__ = [
    "DEPTH_LIMIT",
    "check_payload",
    "check_readable",
    "maybe_nested",
    "maybe_unsafe",
    "openers_of",
    "too_deep",
]

DEPTH_LIMIT: Final = 100
"""How deeply lists and mappings may be nested."""

# Bytes with which MessagePack opens containers and extension types. ASCII text has none of them,
# so a quick count shows for most values that they are neither deep nor unsafe.
_OPENERS: Final = bytes(
    [*range(0x80, 0xA0), 0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9), *range(0xDC, 0xE0)]
)
_OTHERS: Final = bytes(set(range(256)) - set(_OPENERS))
_NO_MAPS: Final = bytes(set(range(256)) - {*range(0x80, 0x90), 0xDE, 0xDF})
_EXTENSIONS: Final = bytes(set(range(256)) - {0xC7, 0xC8, 0xC9, *range(0xD4, 0xD9)})


def openers_of(packed: bytes) -> bytes:
    """Return the bytes that may open containers or extension types, for the checks below."""
    return packed.translate(None, _OTHERS)


def maybe_unsafe(packed: bytes, openers: bytes | None = None) -> bool:
    """Return False if *packed* is certainly safe; a cheap check before the thorough one."""
    if openers is None:
        openers = openers_of(packed)
    return bool(
        b"\xcb\x7f" in packed
        or b"\xcb\xff" in packed
        or b"\xca\x7f" in packed
        or b"\xca\xff" in packed
        or len(openers) > DEPTH_LIMIT
        or openers.translate(None, _EXTENSIONS)
    )


def maybe_nested(openers: bytes) -> bool:
    """Return False if there is at most one mapping, which therefore is no key of another."""
    return len(openers) > 1 and len(openers.translate(None, _NO_MAPS)) > 1


def check_readable(what: str, packed: bytes, task_id: str | None = None) -> None:
    """
    Check that *packed* can be decoded without a type.

    Raises:
        CodecError: If it cannot, as when a key is a mapping (for example from a frozen dataclass).
    """
    try:
        _read(packed)
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise CodecError(f"{what} must be readable: {error}", task_id=task_id) from error


def check_payload(what: str, packed: bytes, task_id: str | None = None) -> None:
    """
    Check every value inside a payload.

    Args:
        what: The payload's name in errors.
        packed: The payload as MessagePack.
        task_id: The id of its task, if any.

    Raises:
        CodecError: If it is malformed, too deep, or holds NaN, infinity or extension types.
    """
    try:
        value = msgspec.msgpack.decode(packed, ext_hook=_refuse_extension)
    except RecursionError:
        raise too_deep(what, task_id=task_id) from None
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise CodecError(f"{what} must be encodable: {error}", task_id=task_id) from error
    layer: list[object] = [value]
    for _ in range(DEPTH_LIMIT + 1):
        below: list[object] = []
        for item in layer:
            if isinstance(item, float) and not math.isfinite(item):
                raise CodecError(f"{what} must hold finite numbers", item, task_id=task_id)
            if isinstance(item, dict):
                pairs = cast("dict[object, object]", item)
                below.extend(pairs)
                below.extend(pairs.values())
            elif isinstance(item, (list, tuple)):
                below.extend(cast("Iterable[object]", item))
        if not below:
            return
        layer = below
    raise too_deep(what, task_id=task_id)


def too_deep(what: str, *value: Any, task_id: str | None = None) -> CodecError:
    """Return the error for a value that is nested too deeply."""
    return CodecError(f"{what} must be nested at most {DEPTH_LIMIT} deep", *value, task_id=task_id)


def _refuse_extension(code: int, _: memoryview) -> Any:
    raise ValueError(f"MessagePack extension type {code} is not allowed")


_read: Final = msgspec.msgpack.Decoder(ext_hook=_refuse_extension).decode
