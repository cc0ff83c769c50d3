"""The ``checkpoint`` operator: errors name the points of a stream that they passed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

from reactivex import Observable, abc

from rxdispatch.errors import ConfigError
from rxdispatch.observable import Stream

__all__ = ["checkpoint"]

T = TypeVar("T")


def checkpoint(name: str) -> Callable[[Observable[T]], Observable[T]]:
    """
    Add *name* to the errors that pass, as a note in their traceback.

    ::

        --1--2--#OSError
        [  checkpoint("parse")  ]
        --1--2--#OSError, noted "passed checkpoint 'parse'"

    The error stays the same object of the same type. It gets one note for each name, however
    often it passes. Items, completion and demand pass untouched.

    Args:
        name: The name in the note; not empty.

    Raises:
        ConfigError: If *name* is not a string or empty.

    Example:
        >>> import asyncio, reactivex
        >>> from rxdispatch.streams import run
        >>> try:
        ...     asyncio.run(run(reactivex.throw(OSError("away")).pipe(checkpoint("parse"))))
        ... except OSError as error:
        ...     print(error, error.__notes__)
        away ["passed checkpoint 'parse'"]
    """
    if name.__class__ is not str or not name:
        raise ConfigError("name must be a string that is not empty", name)
    note = f"passed checkpoint {name!r}"

    def operator(source: Observable[T]) -> Observable[T]:
        def subscribe(
            observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            def on_error(error: Exception) -> None:
                # A user's error class may refuse notes, and RxPY passes on strings too.
                with suppress(Exception):
                    if note not in getattr(error, "__notes__", ()):
                        error.add_note(note)
                observer.on_error(error)

            return source.subscribe(
                observer.on_next, on_error, observer.on_completed, scheduler=scheduler
            )

        return Stream(subscribe)

    return operator
