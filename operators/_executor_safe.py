"""Errors of a user's function that an executor would not hand on as they are."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["executor_safe"]


def executor_safe(what: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """
    Return *function* for an executor: what it raises always reaches the caller as its failure.

    A ``StopIteration`` cannot be set on a future. A ``KeyboardInterrupt`` or ``GeneratorExit``
    that comes from a thread or a process would be taken for one of the caller's own thread.
    """
    return functools.partial(_contain, what, function)


def _contain(what: str, function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except (StopIteration, KeyboardInterrupt, GeneratorExit) as error:
        raise RuntimeError(f"{what} raised {type(error).__name__}") from error
