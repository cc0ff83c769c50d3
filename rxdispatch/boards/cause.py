"""The error of a task and its traceback, stored as one text."""

from __future__ import annotations

from typing import Final

from rxdispatch.failure import TRACEBACK_LIMIT

__all__ = ["pack_cause", "unpack_cause"]

_BETWEEN: Final = b"\xff"  # a byte that UTF-8 never has


def pack_cause(error: str, traceback: str = "", limit: int = TRACEBACK_LIMIT) -> bytes:
    """
    Return both as UTF-8 with a byte 255 between them, which is left out without a traceback.

    Args:
        error: Type and message.
        traceback: What is kept of the traceback.
        limit: How many bytes of its end are stored.
    """
    first = error.encode("utf-8", "replace")
    if not traceback or limit <= 0:
        return first
    second = traceback.encode("utf-8", "replace")
    if len(second) > limit:
        # What was cut within a character is left out.
        second = b"..." + second[len(second) - limit + 3 :].decode(errors="ignore").encode()
    return first + _BETWEEN + second


def unpack_cause(stored: bytes) -> tuple[str, str]:
    """Return error and traceback."""
    error, _, traceback = stored.partition(_BETWEEN)
    return error.decode("utf-8", "replace"), traceback.decode("utf-8", "replace")
