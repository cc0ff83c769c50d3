"""What becomes of an item that failed: by an ``on_error`` function, or after the end."""

from __future__ import annotations

from collections.abc import Callable
from types import CoroutineType
from typing import Any

from rxdispatch.callables import is_unread
from rxdispatch.log import get_logger

__all__ = ["replacement", "report_late"]

log = get_logger(__name__)


def report_late(operator: str, future: Any) -> None:
    """Log the error of *future*, which came after the end, and let asyncio know it was seen."""
    error = None if future.cancelled() else future.exception()
    if isinstance(error, Exception):
        log.warning("error_after_end", operator=operator, failure=error)


def replacement(
    policy: Callable[[Any, BaseException], Any], item: Any, error: BaseException
) -> Any:
    """
    Return what *policy* makes of *item* and *error*.

    Raises:
        BaseException: What *policy* raises; with *error* as its context, unless it has one.
        TypeError: If it returns a coroutine or a generator, which nobody would run.
    """
    try:
        value = policy(item, error)
    except BaseException as worse:
        if worse.__context__ is None and worse is not error:
            worse.__context__ = error
        raise
    if is_unread(value):
        if value.__class__ is CoroutineType:
            value.close()
        raise TypeError(f"on_error must return what to emit, got a {type(value).__name__}")
    return value
