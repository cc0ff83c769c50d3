"""The text of errors: message and traceback of a user's exception, safe from its own methods."""

from __future__ import annotations

import re
import traceback
from typing import Final

from rxdispatch.errors import TaskExecutionError

__all__ = [
    "ERROR_LIMIT",
    "TRACEBACK_LIMIT",
    "cause_of",
    "cut",
    "describe",
    "message_of",
    "traceback_text",
]

ERROR_LIMIT: Final = 2000
"""The most characters that are kept of an error's type and message."""

TRACEBACK_LIMIT: Final = 8192
"""The most bytes that are kept of a traceback: its end, which names the error."""

_HEAD, _TAIL = 1000, 3000
_LONE = re.compile("[\ud800-\udfff]")


def cause_of(error: BaseException) -> BaseException:
    """Return the error that *error* only wraps, or *error* itself."""
    seen: set[int] = set()
    # issubclass() of the type: isinstance() reads __class__, which may run the user's code.
    while issubclass(type(error), TaskExecutionError) and id(error) not in seen:
        seen.add(id(error))
        if error.__cause__ is None:
            break
        error = error.__cause__
    return error


def describe(error: BaseException) -> str:
    """
    Return ``Type: message`` of *error*, or of the error that it only wraps.

    It never raises, although the ``__str__`` of an exception is the user's code. The text has at
    most 2,000 characters and can be encoded as UTF-8.

    Example:
        >>> describe(KeyError("order"))
        "KeyError: 'order'"
    """
    error = cause_of(error)
    return cut(f"{type(error).__name__}: {message_of(error)}", ERROR_LIMIT)


def message_of(error: BaseException) -> str:
    """Return the message of *error*, or a note that it has none; never raises."""
    try:
        return str(error)
    except BaseException as broken:
        return f"<no message: {type(broken).__name__}>"


def traceback_text(error: BaseException) -> str:
    """
    Return the end of the traceback of *error*, at most 8 KiB of UTF-8.

    The text includes causes and the parts of exception groups, but no local variables or arguments.
    The function never raises.
    """
    error = cause_of(error)
    try:
        chain = traceback.TracebackException(type(error), error, error.__traceback__, compact=True)
        text = "".join(_shortened(part) for part in chain.format())
    except BaseException:
        text = describe(error)
    data = _LONE.sub("\ufffd", text.rstrip("\n")).encode()
    if len(data) <= TRACEBACK_LIMIT:
        return data.decode()
    return "..." + data[3 - TRACEBACK_LIMIT :].decode(errors="ignore")


def cut(text: str, limit: int) -> str:
    """Return at most *limit* characters of *text*, encodable as UTF-8."""
    # The text may quote file names with undecodable bytes, but stored text must be UTF-8.
    return _LONE.sub("\ufffd", text[:limit])


def _shortened(part: str) -> str:
    """Keep the start and the end of a long message, so that it leaves room for the frames."""
    if len(part) <= _HEAD + _TAIL:
        return part
    return f"{part[:_HEAD]} ... ({len(part)} characters) ... {part[-_TAIL:]}"
