"""``to_json``: writes events and answers as JSON, and refuses values that JSON would change."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import msgspec

from rxdispatch.errors import CodecError

__all__ = ["to_json"]


def to_json(event: str, fields: dict[str, Any]) -> bytes:
    """
    Return *fields* as JSON.

    Raises:
        CodecError: If JSON cannot hold them, with the id of the *event*.
    """
    try:
        body = msgspec.json.encode(fields)
    except (TypeError, ValueError, RecursionError) as error:
        raise CodecError(f"data must be JSON: {error}", task_id=event) from error
    # A float that is not finite is written as null, and would be read as None.
    if b"null" in body:
        _require_finite(event, msgspec.to_builtins(fields))
    return body


def _require_finite(event: str, value: Any) -> None:
    layer: list[Any] = [value]
    while layer:
        below: list[Any] = []
        for item in layer:
            if isinstance(item, float) and not math.isfinite(item):
                raise CodecError("data must hold finite numbers", item, task_id=event)
            if isinstance(item, dict):
                below.extend(cast("dict[object, object]", item).values())
            elif isinstance(item, (list, tuple)):
                below.extend(cast("Iterable[object]", item))
        layer = below
