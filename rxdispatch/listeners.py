"""Calls to several listeners: an error of one listener does not keep the others from a call."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from rxdispatch.log import get_logger

__all__ = ["LEAVING", "call_each", "tell_each"]

log = get_logger(__name__)

LEAVING: Final = (KeyboardInterrupt, SystemExit)
"""Exceptions that end the process; they are raised once all listeners have been called."""


def call_each(calls: Iterable[Callable[[], object]]) -> None:
    """
    Make all *calls*, and raise the first error after the last of them.

    Raises:
        BaseException: The first error; one of :data:`LEAVING` takes precedence.
    """
    first: BaseException | None = None
    for call in calls:
        try:
            call()
        except BaseException as error:
            if first is None or (isinstance(error, LEAVING) and not isinstance(first, LEAVING)):
                first = error
    _raise(first)


def tell_each(source: str, calls: Iterable[Callable[[], object]]) -> None:
    """
    Make all *calls* and log their exceptions as ``subscriber_failed``.

    Args:
        source: The name of the caller, for the log.
        calls: One for each listener.

    Raises:
        KeyboardInterrupt: After the last call, if one raised it.
        SystemExit: In the same way.
    """
    leaving: BaseException | None = None
    for call in calls:
        try:
            call()
        except LEAVING as error:
            leaving = leaving or error
        except BaseException as error:
            log.error("subscriber_failed", source=source, failure=error)
    _raise(leaving)


def _raise(error: BaseException | None) -> None:
    if error is None:
        return
    try:
        raise error
    finally:
        # The error's traceback holds this frame, which must not hold the error.
        del error
