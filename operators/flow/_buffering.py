"""What ``buffer_bounded``, ``conflate`` and ``prioritize`` have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable, SingleAssignmentDisposable

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.log import get_logger
from rxdispatch.operators.flow._queue_drain import Queue, QueueDrain
from rxdispatch.overflow import Drops, Overflow
from rxdispatch.valve import Gate

__all__ = ["Buffering"]

T = TypeVar("T")

log = get_logger(__name__)


class Buffering(Generic[T]):
    """
    One subscription of an operator at which items wait while downstream is busy.

    With *size* and ``"wait"`` its valve closes when so many wait; what a source pushes all the
    same is kept, and logged once as ``no_demand``. Otherwise it never closes. It takes items
    while there is no room below, as that is what it is for.

    Args:
        name: What the log calls the operator.
        waiting: Where items wait.
        drops: Where drops are counted.
        size: How many may wait.
        overflow: What becomes of the others.
    """

    def __init__(
        self,
        name: str,
        waiting: Queue[T],
        drops: Drops,
        *,
        size: int | None = None,
        overflow: Overflow[T] = "wait",
    ) -> None:
        self._name = name
        self._waiting = waiting
        self._drops = drops
        self._size = size
        self._overflow: Overflow[T] = overflow
        self._warned = size is None or overflow != "wait"
        self._own: Callable[[], int] | None = None if self._warned else self._room
        self._source = SingleAssignmentDisposable()

    def connect(
        self,
        source: Observable[T],
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> abc.DisposableBase:
        """Subscribe to *source*; the disposable ends everything."""
        valve = valve_of(scheduler)
        outlet = self._outlet = QueueDrain(
            observer,
            valve,
            self._waiting,
            drops=self._drops,
            on_left=self._on_left,
            on_end=self._on_end,
            size=self._size,
            overflow=self._overflow,
        )
        self._gate = Gate(self._own, valve, fail=outlet.fail, holds=True)
        self._source.disposable = source.subscribe(
            self._on_next,
            outlet.fail,
            outlet.complete,
            scheduler=LoopScheduler(asyncio.get_running_loop(), valve=self._gate),
        )
        return Disposable(outlet.close)

    def _room(self) -> int:
        return (self._size or 0) - len(self._waiting)

    def _on_next(self, item: T) -> None:
        outlet = self._outlet
        if outlet.closed or outlet.pass_on(item):
            return
        outlet.push(item)
        if not self._warned and self._room() < 0 and not self._gate.watched:
            self._warned = True
            log.warning("no_demand", operator=self._name, size=self._size)

    def _on_left(self) -> None:
        self._gate.opened()

    def _on_end(self) -> None:
        self._source.dispose()
        self._gate.dispose()
