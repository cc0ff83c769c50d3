"""``BroadcastIngress``: an ingress for any number of subscribers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from reactivex import Observable, abc
from reactivex.disposable import Disposable

from rxdispatch.operators.flow._broadcast_hub import BroadcastHub
from rxdispatch.overflow import Overflow
from rxdispatch.streams._ingress import Ingress

__all__ = ["BroadcastIngress"]

T = TypeVar("T")


class BroadcastIngress(Ingress[T]):
    """
    An :class:`Ingress` for any number of subscribers, with ``broadcast`` behind it.

    Each subscriber gets the items that arrive while it is subscribed, through a queue of its own
    for up to *size* items. While nothing is subscribed, up to *size* items wait for the first
    subscriber.

    ``wait_empty`` waits until every subscriber has received everything; it does not wait for
    subscribers that leave. ``waiting`` and ``dropped`` count the items before these queues. What
    the queues drop is only logged.

    Args:
        size: How many items may wait in the queue of each subscriber, and how many before these
            queues.
        overflow: What happens to an item that does not fit. With ``"wait"`` the slowest
            subscriber holds up the producers, and so all other subscribers. With any other policy
            each queue overflows separately, and holds nothing up; ``"error"`` ends the stream of
            that subscriber. Such a policy applies to producers only while nothing is subscribed.
        admit: As for :class:`Ingress`.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> import asyncio
        >>> async def main() -> list[list[int]]:
        ...     ingress = BroadcastIngress[int](10)
        ...     one, two = [], []
        ...     ingress.subscribe(one.append)
        ...     ingress.subscribe(two.append)
        ...     await ingress.put(1)
        ...     await ingress.wait_empty()
        ...     return [one, two]
        >>> asyncio.run(main())
        [[1], [1]]
    """

    def __init__(
        self,
        size: int,
        *,
        overflow: Overflow[T] = "wait",
        admit: Callable[[T], bool] | None = None,
    ) -> None:
        super().__init__(size, overflow=overflow, admit=admit)
        source: Observable[T] = Observable(super()._enter)
        self._hub: BroadcastHub[T] = BroadcastHub(source, size, overflow)
        self._emitting = 0

    def _enter(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        subscription = self._hub.subscribe(_CountedObserver(self, observer), scheduler)

        def leave() -> None:
            subscription.dispose()
            self._notify_if_empty()

        return Disposable(leave)

    def _idle(self) -> bool:
        return super()._idle() and not self._emitting and not self._hub.waiting


class _CountedObserver(abc.ObserverBase[T], Generic[T]):
    """A subscriber that tells the ingress when it has received an item."""

    def __init__(self, ingress: BroadcastIngress[T], observer: abc.ObserverBase[T]) -> None:
        self._ingress: Any = ingress
        self._observer = observer

    def on_next(self, value: T) -> None:
        ingress = self._ingress
        ingress._emitting += 1
        try:
            self._observer.on_next(value)
        finally:
            ingress._emitting -= 1
            ingress._notify_if_empty()

    def on_error(self, error: Exception) -> None:
        try:
            self._observer.on_error(error)
        finally:
            self._ingress._notify_if_empty()

    def on_completed(self) -> None:
        try:
            self._observer.on_completed()
        finally:
            self._ingress._notify_if_empty()
