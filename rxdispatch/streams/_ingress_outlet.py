"""``IngressOutlet``: the subscriber of an ingress; ``ItemQueue``: the items that wait for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Generic, Protocol, TypeVar

from reactivex import abc

from rxdispatch.clock import valve_of
from rxdispatch.valve import bound_by

__all__ = ["IngressOutlet", "ItemQueue"]

T = TypeVar("T")


class ItemQueue(Protocol[T]):
    """A queue of waiting items with their contexts, which decides their order; like a deque."""

    def __len__(self) -> int: ...

    def append(self, entry: tuple[T, Context], /) -> None: ...

    def popleft(self) -> tuple[T, Context]: ...


class IngressOutlet(Generic[T]):
    """
    The subscriber of an ingress, with the valve below it and a timer.

    Args:
        pump: A function that is called when the valve opens and when the timer fires.
        observer: The subscriber.
        scheduler: The scheduler of its subscription, which carries the valve.
    """

    def __init__(
        self,
        pump: Callable[[], None],
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        self.observer = observer
        self._pump = pump
        self._below = bound_by(valve_of(scheduler))
        self._link = None if self._below is None else self._below.listen(pump)
        self._alarm: asyncio.TimerHandle | None = None

    def open(self) -> bool:
        """Whether there is room below."""
        return self._below is None or self._below.room() > 0

    def wake_at(self, when: float | None, context: Context | None = None) -> None:
        """Call *pump* when the loop's clock shows *when*; this replaces any earlier request."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        if when is not None:
            loop = asyncio.get_running_loop()
            self._alarm = loop.call_at(when, self._pump, context=context)

    def close(self) -> None:
        """Stop listening to the valve, and stop the timer."""
        self.wake_at(None)
        if self._link is not None:
            self._link.dispose()
