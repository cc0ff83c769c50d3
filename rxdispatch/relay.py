"""``Relay``: a hot observable that isolates its subscribers from one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.listeners import LEAVING, tell_each
from rxdispatch.log import get_logger
from rxdispatch.observable import Stream

__all__ = ["Relay"]

T = TypeVar("T")

log = get_logger(__name__)


class Relay(Generic[T]):
    """
    A hot source that pushes values to its current subscribers.

    A ``Subject`` raises an observer's exception in the producer and skips the observers after it.
    A relay logs the exception as ``subscriber_failed``, unsubscribes only that observer, and calls
    its ``on_error``. It also logs what the observer raises there or in ``on_completed``. It raises
    ``KeyboardInterrupt`` and ``SystemExit`` after it has called all observers.

    Args:
        name: The source, for the log.
        on_first: Called when the first subscriber comes.
        on_last: Called when the last subscriber has gone.
    """

    __slots__ = ("_name", "_observers", "_on_first", "_on_last", "observable")

    def __init__(
        self,
        name: str,
        *,
        on_first: Callable[[], None] | None = None,
        on_last: Callable[[], None] | None = None,
    ) -> None:
        self._name = name
        self._observers: list[abc.ObserverBase[T]] = []
        self._on_first = on_first
        self._on_last = on_last
        self.observable: Observable[T] = Stream(self._subscribe)

    @property
    def active(self) -> bool:
        """Whether there are subscribers."""
        return bool(self._observers)

    def emit(self, value: T) -> None:
        """Push *value* to every subscriber."""
        leaving: BaseException | None = None
        for observer in tuple(self._observers):
            try:
                observer.on_next(value)
            except LEAVING as error:
                leaving = leaving or error
            except BaseException as error:
                try:
                    self._failed(observer, error)
                except BaseException as interrupt:
                    leaving = leaving or interrupt
        if leaving is None:
            return
        try:
            raise leaving
        finally:
            # The error's traceback holds this frame, which must not hold the error.
            del leaving

    def complete(self) -> None:
        """End the stream for every subscriber."""
        observers, self._observers = self._observers, []
        tell_each(self._name, [observer.on_completed for observer in observers])

    def _failed(self, observer: abc.ObserverBase[T], error: BaseException) -> None:
        """Unsubscribe *observer*, which has raised *error*, and call its ``on_error``."""
        log.error("subscriber_failed", source=self._name, failure=error)
        self._drop(observer)
        try:
            observer.on_error(error)  # type: ignore[arg-type]
        except LEAVING:
            raise
        except BaseException as worse:
            # An observer without an ``on_error`` of its own raises the same error again.
            if worse is not error:
                log.error("subscriber_failed", source=self._name, failure=worse)

    def _subscribe(
        self, observer: abc.ObserverBase[T], _: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        self._observers.append(observer)
        if len(self._observers) == 1 and self._on_first is not None:
            self._on_first()
        return Disposable(lambda: self._drop(observer))

    def _drop(self, observer: abc.ObserverBase[T]) -> None:
        if observer in self._observers:
            self._observers.remove(observer)
            if not self._observers and self._on_last is not None:
                self._on_last()
