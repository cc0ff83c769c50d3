"""``PriorityIngress``: what matters most goes first."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, TypeVar

from rxdispatch.callables import plain_function
from rxdispatch.errors import ConfigError
from rxdispatch.overflow import Overflow
from rxdispatch.streams._ranked import Ranked, RankedIngress

__all__ = ["PriorityIngress"]

T = TypeVar("T")


class PriorityIngress(RankedIngress[T]):
    """
    An :class:`Ingress` of which the waiting item with the highest *key* goes first.

    Higher goes first as on boards and in ``prioritize``; equal keys keep their order. Items are
    sorted while they wait, so it is the room below that decides: a subscriber that is never busy
    gets them as they come. With ``overflow="wait"`` those whose ``put`` waits for a place do not
    take part; they get places in the order in which they came.

    Args:
        size: How many items may wait, at least 1.
        key: A plain function, called once with each item, in the thread of its producer. It
            returns an int or a float that is not NaN.
        overflow: As for :class:`Ingress`, without ``"drop_oldest"``.
        admit: As for :class:`Ingress`.

    Raises:
        ConfigError: If an argument breaks its rule; from ``put`` and ``offer``, if what *key*
            returns does.

    Example:
        >>> from reactivex import operators as rx
        >>> from rxdispatch.streams import run
        >>> async def main() -> list[int] | None:
        ...     ingress = PriorityIngress[int](3, key=lambda n: n)
        ...     for n in (1, 9, 5):
        ...         ingress.offer(n)
        ...     ingress.close()
        ...     return await run(ingress.pipe(rx.to_list()))
        >>> import asyncio
        >>> asyncio.run(main())
        [9, 5, 1]
    """

    def __init__(
        self,
        size: int,
        *,
        key: Callable[[T], float],
        overflow: Overflow[T] = "wait",
        admit: Callable[[T], bool] | None = None,
    ) -> None:
        # Else its coroutine would be taken for the key and never awaited.
        plain_function("key", key)
        super().__init__(size, overflow=overflow, admit=admit)
        self._key = key

    async def put(self, item: T) -> None:
        """Do as :meth:`Ingress.put`."""
        await super().put(self._ranked(item))

    def offer(self, item: T) -> bool:
        """Do as :meth:`Ingress.offer`."""
        return super().offer(self._ranked(item))

    def offer_threadsafe(self, item: T) -> bool:
        """Do as :meth:`Ingress.offer_threadsafe`."""
        return super().offer_threadsafe(self._ranked(item))

    def _ranked(self, item: T) -> Ranked[T]:
        # Before anything is changed, and outside of the lock: it may raise, or take its time.
        key: Any = self._key(item)
        # An int may be too large for a float.
        if not isinstance(key, (int, float)) or (isinstance(key, float) and math.isnan(key)):
            raise ConfigError("key must return an int or a float that is not NaN", key)
        # As plain numbers: those of a class of its own may raise when they are compared, which
        # happens in the middle of a change.
        return Ranked(-(int(key) if isinstance(key, int) else float(key)), item)
