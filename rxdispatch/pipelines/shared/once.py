"""``Once``: an event that happens once, as a stream for early and late subscribers."""

from __future__ import annotations

from functools import partial

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.listeners import tell_each

__all__ = ["Once"]


class Once:
    """
    An event that happens once, as a stream that emits None and completes.

    A subscriber that comes after the event gets both at once.
    An error of one subscriber reaches neither the others nor the caller of :meth:`happen`.

    Args:
        name: The name of the event in the log.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._observers: list[abc.ObserverBase[None]] = []
        self._over = False
        #: The stream.
        self.stream: Observable[None] = Observable(self._enter)

    def happen(self) -> None:
        """Notify all subscribers; a second call does nothing."""
        self._over = True
        observers, self._observers = self._observers, []
        tell_each(self._name, [partial(_tell, observer) for observer in observers])

    def _enter(
        self, observer: abc.ObserverBase[None], _: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        if self._over:
            _tell(observer)
            return Disposable()
        self._observers.append(observer)

        def leave() -> None:
            if observer in self._observers:
                self._observers.remove(observer)

        return Disposable(leave)


def _tell(observer: abc.ObserverBase[None]) -> None:
    observer.on_next(None)
    observer.on_completed()
