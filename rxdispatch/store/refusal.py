"""Errors of a server that refuses all writes, or refuses this user."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import NoPermissionError, OutOfMemoryError, ResponseError

from rxdispatch.errors import ConfigError
from rxdispatch.store.url import Target

__all__ = ["forbidden", "state_of"]

_STATES: Final = re.compile(r"(?:^|-)(OOM|MISCONF|NOREPLICAS|READONLY|MASTERDOWN)\b")


def state_of(error: ResponseError) -> str | None:
    """
    Return the state in which the server refuses all writes, such as ``MISCONF``, else None.

    With such a reply the server has written nothing.
    """
    if isinstance(error, OutOfMemoryError):
        return "OOM"
    # For a script, Redis 6.2 reports the state in the middle of a longer message.
    found = _STATES.search(str(error))
    return None if found is None else found[1]


# The server checks a script's commands, keys and channels while it runs.
_FORBIDDEN: Final = re.compile(r"\bNOPERM\b|ACL failure in script|user executing the script")


def forbidden(error: ResponseError, operation: str, target: Target) -> ConfigError | None:
    """
    Return the error to raise if the ACL of the server forbids *operation*, else None.

    Args:
        error: The server's answer; it names the command, the key or the channel.
        operation: The name of the call.
        target: The server, with the user.
    """
    text = str(error)
    if not isinstance(error, NoPermissionError) and not _FORBIDDEN.search(text):
        return None
    return ConfigError(
        f"{operation}: the server's ACL must allow it to user {target.user or 'default'!r}"
        f" (docs/how-to/own-redis.md lists what is needed); the server says: {text}"
    )
