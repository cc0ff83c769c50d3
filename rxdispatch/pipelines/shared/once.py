"""``Once``: something that happens once, told to the listeners of before and after."""

from __future__ import annotations

from functools import partial

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.listeners import tell_each

__all__ = ["Once"]


class Once:
    """
    Emits None when it happens, or at once if it has happened already, and completes.

    What one listener raises harms no other, and not the place where it happens.

    Args:
        name: What the log calls it.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._observers: list[abc.ObserverBase[None]] = []
        self._over = False
        #: What to subscribe to.
        self.stream: Observable[None] = Observable(self._enter)

    def happen(self) -> None:
        """Tell everybody; the second time nothing is done."""
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
