"""Reads and parses the HTTP answers of a server, and limits their size."""

from __future__ import annotations

import math
from contextlib import aclosing
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from rxdispatch.error_text import cut

if TYPE_CHECKING:
    import httpx

__all__ = ["BadAnswerError", "error_of", "read", "result_of", "retry_after"]

_TYPE_LIMIT: Final = 200
_MESSAGE_LIMIT: Final = 2000


class BadAnswerError(Exception):
    """
    The answer breaks a rule.

    Args:
        type: The kind of error.
        rule: The rule.
    """

    def __init__(self, type: str, rule: str) -> None:  # noqa: A002
        self.type = type
        super().__init__(rule)


async def read(answer: httpx.Response, limit: int) -> bytes:
    """
    Return the decoded body of *answer*, of at most *limit* bytes.

    Raises:
        BadAnswerError: If it is larger, or encoded although the request did not ask for that.
    """
    asked = answer.request.headers.get("accept-encoding", "identity")
    if asked == "identity" and answer.headers.get("content-encoding", "identity") != "identity":
        # A few encoded bytes may be gigabytes.
        raise BadAnswerError(
            "BadAnswer", "the answer must not be encoded unless the request asked for that"
        )
    body = bytearray()
    # httpx returns async generators. Without aclosing, a generator that is left early closes late.
    plain = asked == "identity" and not answer.is_stream_consumed
    reading: Any = answer.aiter_raw() if plain else answer.aiter_bytes()
    async with aclosing(reading) as parts:
        async for part in parts:
            body += part
            if len(body) > limit:
                raise BadAnswerError("TooLarge", f"the answer must be at most {limit} bytes")
    return bytes(body)


def result_of(body: bytes, event: str) -> Any:
    """
    Return the data of the answer to *event*.

    Raises:
        BadAnswerError: If *body* is not an answer to *event*.
    """
    fields = _object(_decoded(body))
    if fields.get("id") == event and "data" in fields:
        return fields["data"]
    raise BadAnswerError("BadAnswer", "the answer must be JSON with the event's id, and data")


def error_of(body: bytes, otherwise: str) -> tuple[str, str]:
    """Return the type and the message of an error, cut to 200 and 2,000 characters."""
    error = _object(_object(_decoded(body)).get("error"))
    kind, message = error.get("type", "HTTPError"), error.get("message", otherwise)
    return cut(str(kind), _TYPE_LIMIT), cut(str(message), _MESSAGE_LIMIT)


def retry_after(text: str | None) -> float | None:
    """Return the seconds of a ``Retry-After``, which has seconds or a date; None if neither."""
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        try:
            when = parsedate_to_datetime(text)
            if when.tzinfo is None:
                when = when.replace(tzinfo=UTC)
            found = (when - datetime.now(UTC)).total_seconds()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, found) if math.isfinite(found) else None


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _object(found: Any) -> dict[str, Any]:
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}
