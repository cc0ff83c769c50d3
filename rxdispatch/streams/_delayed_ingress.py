"""``DelayedIngress``: an ingress that emits each item after the item's own delay."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any, TypeVar

from rxdispatch.errors import ConfigError
from rxdispatch.seconds import seconds
from rxdispatch.streams._ranked import Ranked, RankedIngress

__all__ = ["DelayedIngress"]

T = TypeVar("T")


class DelayedIngress(RankedIngress[T]):
    """
    An :class:`Ingress` that emits each item when it is due.

    It emits items in the order of their times, and items of equal times in the order of arrival.
    An item that is due waits while there is no room below or nothing is subscribed. An item keeps
    its place until it is emitted, so long delays need a large *size*. After ``close`` the stream
    still emits all items before it completes, and ``wait_empty`` waits for all of them.

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

    async def put(self, item: T, *, delay: float | timedelta = 0.0) -> None:
        """
        Do the same as :meth:`Ingress.put`; the item is due *delay* seconds after the call.

        Raises:
            ConfigError: If *delay* is not a finite number of seconds >= 0.
        """
        await super().put(self._due(item, delay))

    def offer(self, item: T, *, delay: float | timedelta = 0.0) -> bool:
        """Do the same as :meth:`Ingress.offer`; the item is due in *delay* seconds."""
        return super().offer(self._due(item, delay))

    def offer_threadsafe(self, item: T, *, delay: float | timedelta = 0.0) -> bool:
        """
        Do the same as :meth:`Ingress.offer_threadsafe`; the item is due in *delay* seconds.

        Raises:
            ConfigError: If *delay* breaks its rule, or if no subscriber or producer has yet bound
                the ingress to a loop, whose clock measures delays.
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
        loop, outlet = self._loop, self._outlet
        assert loop is not None
        assert outlet is not None
        due = self._heap.first if self._heap else None
        ready = due is not None and due <= loop.time()
        outlet.wake_at(None if ready else due, self._context)
        return ready
