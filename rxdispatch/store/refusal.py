"""Why a server refuses to write at all, or refuses us."""

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
    Return the state of the server that made it refuse, such as ``MISCONF``, else None.

    It refused before anything was written.
    """
    if isinstance(error, OutOfMemoryError):
        return "OOM"
    # A script of Redis 6.2 reports what stopped it in the middle of its own message.
    found = _STATES.search(str(error))
    return None if found is None else found[1]


# A script meets the rules for its commands, keys and channels while it runs.
_FORBIDDEN: Final = re.compile(r"\bNOPERM\b|ACL failure in script|user executing the script")


def forbidden(error: ResponseError, operation: str, target: Target) -> ConfigError | None:
    """
    Return what to raise where the ACL of the server forbids *operation*, else None.

    Args:
        error: What the server answered; it names the command, the key or the channel.
        operation: What was asked.
        target: As whom it was asked.
    """
    text = str(error)
    if not isinstance(error, NoPermissionError) and not _FORBIDDEN.search(text):
        return None
    return ConfigError(
        f"{operation}: the server's ACL must allow it to user {target.user or 'default'!r}"
        f" (docs/how-to/own-redis.md lists what is needed); the server says: {text}"
    )
