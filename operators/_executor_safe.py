"""``executor_safe``: a function whose every exception reaches the caller of an executor."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["executor_safe"]


def executor_safe(what: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """
    Return *function* with the exceptions replaced that an executor cannot pass on.

    A ``StopIteration`` cannot be set on a future. A ``KeyboardInterrupt`` or ``GeneratorExit``
    from a thread or a process would look like one of the caller's own thread.
    """
    return functools.partial(_call, what, function)


def _call(what: str, function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except (StopIteration, KeyboardInterrupt, GeneratorExit) as error:
        raise RuntimeError(f"{what} raised {type(error).__name__}") from error
