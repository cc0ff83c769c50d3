"""``Buffering``: the base of ``buffer_bounded``, ``conflate`` and ``prioritize``."""

from __future__ import annotations

from typing import TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.operators._subscription import Upstream
from rxdispatch.operators.flow._queue_drain import DrainQueue, QueueDrain
from rxdispatch.overflow import Drops, Overflow

__all__ = ["Buffering"]

T = TypeVar("T")


class Buffering(QueueDrain[T]):
    """
    One subscription of an operator at which items wait while downstream is busy.

    With *size* and ``"wait"`` its valve closes when *size* items wait. If a source pushes more,
    the items are kept and ``no_demand`` is logged once. Otherwise the valve never closes. The
    operator takes items while there is no room below, which is its purpose.

    Args:
        name: The operator, for the log.
        observer: Gets the items.
        scheduler: May carry the valve of the subscriber.
        waiting: The queue.
        drops: Counts the items that are dropped.
        size: How many items may wait.
        overflow: What happens to items that do not fit.
    """

    def __init__(
        self,
        name: str,
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
        waiting: DrainQueue[T],
        *,
        drops: Drops,
        size: int | None = None,
        overflow: Overflow[T] = "wait",
    ) -> None:
        super().__init__(observer, scheduler, waiting, drops=drops, size=size, overflow=overflow)
        self._size = size if overflow == "wait" else None
        room = None if self._size is None else self._room
        self._upstream: Upstream[T] = Upstream(
            name, self._size, room, self.valve, fail=self.fail, holds=True
        )
        self.upstreams = (self._upstream,)

    def connect(self, source: Observable[T]) -> abc.DisposableBase:
        """Subscribe to *source*; the disposable ends everything."""
        self._upstream.connect(source, self._on_next, self.fail, self.on_completed)
        return Disposable(self.dispose)

    def _room(self) -> int:
        return (self._size or 0) - len(self.waiting)

    def _on_next(self, item: T) -> None:
        if self.closed or self.pass_on(item):
            return
        self.push(item)
        if self._size is not None and not self._upstream.demand_checked and self._room() < 0:
            self._upstream.check_demand()

    def on_left(self) -> None:
        """Ask the source for more."""
        self._upstream.gate.opened()
