"""``current_claim``: the claim whose handler is running."""

from __future__ import annotations

from typing import Any

from rxdispatch.claim import Claim, current

__all__ = ["current", "current_claim"]


def current_claim() -> Claim[Any]:
    """
    Return the claim that the calling handler works on.

    It works in coroutines and threads that ``execute`` runs, but not in other processes.

    Raises:
        LookupError: If no handler is running here.
    """
    try:
        return current.get()
    except LookupError:
        raise LookupError("current_claim() must be called from within a handler") from None
