"""``DelayedIngress``: each item goes after a delay of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

from reactivex import abc

from rxdispatch.errors import ConfigError
from rxdispatch.overflow import Overflow
from rxdispatch.seconds import seconds
from rxdispatch.streams._ranked import Ranked, RankedIngress

__all__ = ["DelayedIngress"]

T = TypeVar("T")


class DelayedIngress(RankedIngress[T]):
    """
    An :class:`Ingress` of which each item goes when it is due.

    Items go in the order of their times, those of equal times in the order of arrival. What is
    due while there is no room below, or nobody is subscribed, waits until there is. An item
    keeps its place until it has gone, so far delays need a large *size*. After ``close`` the
    stream completes once the last has gone; ``join`` waits for that too.

    Args:
        size: How many items may wait, due or not, at least 1.
        overflow: As for :class:`Ingress`, without ``"drop_oldest"``.
        admit: As for :class:`Ingress`.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> from reactivex import operators as rx
        >>> from rxdispatch.streams import run
        >>> from rxdispatch.testing import run_virtual
        >>> async def main() -> list[str] | None:
        ...     ingress = DelayedIngress[str](10)
        ...     await ingress.put("later", delay=60)
        ...     await ingress.put("now")
        ...     ingress.close()
        ...     return await run(ingress.pipe(rx.to_list()))
        >>> run_virtual(main())
        ['now', 'later']
    """

    def __init__(
        self,
        size: int,
        *,
        overflow: Overflow[T] = "wait",
        admit: Callable[[T], bool] | None = None,
    ) -> None:
        super().__init__(size, overflow=overflow, admit=admit)
        self._alarm: asyncio.TimerHandle | None = None

    async def put(self, item: T, *, delay: float | timedelta = 0.0) -> None:
        """
        Do as :meth:`Ingress.put`; the item is due *delay* seconds after this was called.

        Raises:
            ConfigError: If *delay* breaks its rule.
        """
        await super().put(self._due(item, delay))

    def offer(self, item: T, *, delay: float | timedelta = 0.0) -> bool:
        """Do as :meth:`Ingress.offer`; the item is due in *delay* seconds."""
        return super().offer(self._due(item, delay))

    def offer_threadsafe(self, item: T, *, delay: float | timedelta = 0.0) -> bool:
        """
        Do as :meth:`Ingress.offer_threadsafe`; the item is due in *delay* seconds.

        Raises:
            ConfigError: If *delay* breaks its rule, or before a subscriber or a producer has
                shown which loop's clock that is.
        """
        return super().offer_threadsafe(self._due(item, delay, self._loop))

    def _due(self, item: T, delay: Any, loop: asyncio.AbstractEventLoop | None = None) -> Ranked[T]:
        after = seconds("delay", delay)
        if loop is None:
            try:
                loop = asyncio.get_running_loop()
            except RuntimeError:
                raise ConfigError("a delayed ingress must be in use on a loop first") from None
        return Ranked(loop.time() + after, item)

    def _ready(self) -> bool:
        self._disarm()
        if not self._heap:
            return False
        loop, due = self._loop, self._heap.first
        assert loop is not None
        if due <= loop.time():
            return True
        self._alarm = loop.call_at(due, self._pump, context=self._home)
        return False

    def _leave(self, way_out: Any) -> None:
        super()._leave(way_out)
        self._disarm()

    def _enter(
        self, observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        self._disarm()
        return super()._enter(observer, scheduler)

    def _disarm(self) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
