"""``Gate``: the valve that an operator owns, chained to the valve below it."""

from __future__ import annotations

import sys
from collections.abc import Callable

from reactivex.abc import DisposableBase
from reactivex.disposable import Disposable

from rxdispatch.protocols import Valve

__all__ = ["Gate"]


class Gate:
    """
    The room of an operator that holds a bounded number of items.

    The operator makes one for each subscription, subscribes to its source with
    ``LoopScheduler(loop, valve=gate)``, and calls :meth:`opened` whenever an item leaves it.
    The room of the valve below counts too, so that demand flows up a whole chain.

    Args:
        own: How many more items the operator itself can take.
        below: The valve of the operator's own subscriber, if any.
    """

    __slots__ = ("_below", "_link", "_listeners", "_own")

    def __init__(self, own: Callable[[], int], below: Valve | None) -> None:
        self._own = own
        self._below = below
        self._listeners: list[Callable[[], None]] = []
        self._link = None if below is None else below.listen(self.opened)

    def room(self) -> int:
        """How many more items may come now; 0 while the valve below has no room."""
        below = self._below
        if below is not None and below.room() <= 0:
            return 0
        return self._own()

    def listen(self, on_room: Callable[[], None]) -> DisposableBase:
        """Call *on_room* whenever there may be room again, until disposed."""
        self._listeners.append(on_room)

        def forget() -> None:
            if on_room in self._listeners:
                self._listeners.remove(on_room)

        return Disposable(forget)

    def opened(self) -> None:
        """Tell the source that there may be room again."""
        listeners = self._listeners
        if len(listeners) == 1:
            listeners[0]()
        else:
            for on_room in tuple(listeners):
                on_room()

    def dispose(self) -> None:
        """Open for good: who no longer takes anything must not hold up others."""
        if self._link is not None:
            self._link.dispose()
        self._below = self._link = None
        self._own = _unbounded
        self.opened()


def _unbounded() -> int:
    return sys.maxsize
