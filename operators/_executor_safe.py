"""``executor_safe``: wraps a function so that an executor can pass on all its exceptions."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

__all__ = ["executor_safe"]


def executor_safe(what: str, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """
    Return *function*, wrapped to replace the exceptions that an executor cannot pass on.

    A ``StopIteration`` cannot be set on a future. A ``KeyboardInterrupt`` or ``GeneratorExit``
    from a thread or a process would look as if the caller's own thread had raised it.
    """
    return functools.partial(_call, what, function)


def _call(what: str, function: Callable[[Any], Any], item: Any) -> Any:
    try:
        return function(item)
    except (StopIteration, KeyboardInterrupt, GeneratorExit) as error:
        raise RuntimeError(f"{what} raised {type(error).__name__}") from error
