"""Why a server refuses to write at all."""

from __future__ import annotations

import re
from typing import Final

from redis.exceptions import OutOfMemoryError, ResponseError

__all__ = ["state_of"]

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
