"""``stream_of``: a stream over an iterable; if it is an iterator, for one subscriber only."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from reactivex import abc
from reactivex.disposable import Disposable

from rxdispatch.errors import ConfigError
from rxdispatch.observable import Stream

__all__ = ["stream_of"]

T = TypeVar("T")

Begin = Callable[
    [Any, abc.ObserverBase[T], abc.SchedulerBase | None],
    abc.DisposableBase,
]


def stream_of(iterable: Any, opens: Callable[[Any], Any], what: str, begin: Begin[T]) -> Stream[T]:
    """
    Return a stream that iterates over *iterable* for each subscriber.

    Args:
        iterable: The argument of ``opens``. An iterable that is its own iterator serves one
            subscriber.
        opens: ``iter`` or ``aiter``.
        what: The name of an iterator in errors.
        begin: A function that starts a subscription; it gets an iterator, the observer and the
            scheduler.
    """
    used = False

    def subscribe(
        observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        nonlocal used
        iterator = opens(iterable)
        if iterator is iterable:
            if used:
                observer.on_error(
                    ConfigError(f"{what} can be subscribed to only once; use reactivex.defer")
                )
                return Disposable()
            used = True
        return begin(iterator, observer, scheduler)

    return Stream(subscribe)
