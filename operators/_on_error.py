"""``ErrorRule``: applies ``on_error`` to items that failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Literal, TypeVar

from rxdispatch.callables import discard_unread, plain_function
from rxdispatch.errors import ConfigError
from rxdispatch.listeners import LEAVING
from rxdispatch.log import get_logger

__all__ = ["SKIPPED", "ErrorRule", "OnError", "checked_on_error"]

T = TypeVar("T")
R = TypeVar("R")

log = get_logger(__name__)

OnError = Literal["stop", "skip"] | Callable[[T, BaseException], R]

SKIPPED: Final[Any] = object()
"""The result of an item for which nothing is emitted."""


def checked_on_error(on_error: OnError[T, R]) -> OnError[T, R]:
    """
    Return *on_error*.

    Raises:
        ConfigError: If it is neither ``"stop"``, ``"skip"`` nor a plain function.
    """
    if on_error in ("stop", "skip"):
        return on_error
    if not callable(on_error):
        raise ConfigError('on_error must be "stop", "skip" or callable', on_error)
    # Otherwise its coroutine would be emitted as the replacement, and never awaited.
    return plain_function("on_error", on_error)


class ErrorRule:
    """
    Decides what follows from the failures of one subscription, and counts the skipped items.

    Args:
        on_error: ``"skip"`` logs an item as ``item_skipped``; a function returns what to emit
            instead of it; with any other string the error is passed on.
        operator: The operator, for the log.
        passing: The errors that are always passed on.
        **names: More fields for the log, such as the name of a stage.

    Example:
        >>> ErrorRule(lambda item, error: -item, "map_async").resolve(3, OSError())
        (-3, None)
    """

    __slots__ = ("_names", "_on_error", "_passing", "_skipped")

    def __init__(
        self,
        on_error: Any,
        operator: str,
        *,
        passing: tuple[type[BaseException], ...] = LEAVING,
        **names: str,
    ) -> None:
        self._on_error = on_error
        self._passing = passing
        self._names = {"operator": operator, **names}
        self._skipped = 0

    def resolve(self, item: Any, error: BaseException) -> tuple[Any, BaseException | None]:
        """
        Return a pair: what to emit instead of *item* and None, or None and the error to pass on.

        The first is :data:`SKIPPED` if nothing is emitted. An error that the function raises is
        passed on instead of *error*, which becomes its context unless it already has one.
        """
        on_error = self._on_error
        if on_error == "skip" and not isinstance(error, self._passing):
            self._skipped += 1
            log.warning("item_skipped", **self._names, skipped=self._skipped, failure=error)
            return SKIPPED, None
        if isinstance(on_error, str) or isinstance(error, self._passing):
            return None, error
        try:
            return _checked(on_error(item, error)), None
        except BaseException as worse:
            if worse.__context__ is None and worse is not error:
                worse.__context__ = error
            return None, worse


def _checked(value: Any) -> Any:
    if kind := discard_unread(value):
        raise TypeError(f"on_error must return what to emit, got a {kind}")
    return value
