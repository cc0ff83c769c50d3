"""``PriorityIngress``: an ingress that emits the waiting item of the highest priority first."""

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
    An :class:`Ingress` that emits the waiting item with the highest *key* first.

    Higher goes first, as on boards and in ``prioritize``; items with equal keys keep their order.
    Only items that wait are sorted: a subscriber that is never busy gets them as they arrive. With
    ``overflow="wait"``, items whose ``put`` still waits for a place are not sorted; they get
    places in the order of their calls.

    Args:
        size: How many items may wait, at least 1.
        key: A plain function, called once with each item, in the thread of its producer. It
            returns an int or a float that is not NaN.
        overflow: As for :class:`Ingress`, without ``"drop_oldest"``.
        admit: As for :class:`Ingress`.

    Raises:
        ConfigError: If an argument breaks its rule. The methods that put items in raise it if the
            result of *key* breaks its rule.

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
        # The coroutine of a coroutine function would be taken for the key, and never awaited.
        plain_function("key", key)
        super().__init__(size, overflow=overflow, admit=admit)
        self._key = key

    async def put(self, item: T) -> None:
        """Do the same as :meth:`Ingress.put`."""
        await super().put(self._ranked(item))

    def offer(self, item: T) -> bool:
        """Do the same as :meth:`Ingress.offer`."""
        return super().offer(self._ranked(item))

    def offer_threadsafe(self, item: T) -> bool:
        """Do the same as :meth:`Ingress.offer_threadsafe`."""
        return super().offer_threadsafe(self._ranked(item))

    def _ranked(self, item: T) -> Ranked[T]:
        # Before any change, and outside the lock: user code may raise, or be slow.
        key: Any = self._key(item)
        # An int may be too large for a float.
        if not isinstance(key, (int, float)) or (isinstance(key, float) and math.isnan(key)):
            raise ConfigError("key must return an int or a float that is not NaN", key)
        # As a plain number: one of a subclass may raise when compared, in the middle of a change.
        return Ranked(-(int(key) if isinstance(key, int) else float(key)), item)
