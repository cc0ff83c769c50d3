"""The ``broadcast`` operator: several subscribers, a queue for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable

from rxdispatch.observable import Stream
from rxdispatch.operators.flow._broadcast_hub import BroadcastHub
from rxdispatch.overflow import Overflow, checked_overflow, checked_size

__all__ = ["broadcast"]

T = TypeVar("T")


def broadcast(
    size: int, overflow: Overflow[T] = "wait"
) -> Callable[[Observable[T]], Observable[T]]:
    """
    Share one subscription to the source among several subscribers, with a queue for each.

    ::

        --1--2--3--|
        [ broadcast(2) ]
        --1--2--3--|       one subscriber
        -----2-----3--|    another one that came later and is slower

    The operator stays subscribed to the source while there are subscribers, and subscribes again
    when one comes after all have left. A late subscriber gets the items from then on; after the
    completion, only the completion. After an error the next subscriber starts the source again,
    so that ``retry_backoff`` below works. The streams of this package begin with the loop's next
    turn, so all subscribers of one turn get the same items.

    Each subscriber has its own valve, and a queue of up to *size* items for when it is busy. With
    ``"wait"`` the slowest subscriber holds up the source, and so all the others, as soon as its
    queue is full. If a source that cannot wait pushes more, the items are kept and ``no_demand``
    is logged once. With the other policies the source is never held up, and each queue overflows
    on its own, as in ``buffer_bounded``.

    A subscriber that raises is logged as ``subscriber_failed`` and gets its error through
    ``on_error``. It does not affect the others, and neither does leaving or an overflow.

    Args:
        size: How many items may wait for each subscriber, at least 1.
        overflow: ``"wait"``, ``"drop_oldest"``, ``"drop_newest"``, ``"error"``, or a callable
            that gets each item that does not fit, as in ``buffer_bounded``.

    Raises:
        ConfigError: If an argument breaks its rule.

    Each subscriber completes after the items that wait for it. An error comes at once, and the
    items that wait are dropped and logged.

    Example:
        >>> import asyncio, reactivex
        >>> from reactivex import operators as rx
        >>> from reactivex.subject import Subject
        >>> source: Subject[int] = Subject()
        >>> async def main() -> list[list[int]]:
        ...     shared = source.pipe(broadcast(10))
        ...     one, two = [], []
        ...     shared.subscribe(one.append)
        ...     source.on_next(1)
        ...     shared.subscribe(two.append)
        ...     source.on_next(2)
        ...     return [one, two]
        >>> asyncio.run(main())
        [[1, 2], [2]]
    """
    checked_size(size)
    checked_overflow(overflow)

    def operator(source: Observable[T]) -> Observable[T]:
        return Stream(BroadcastHub(source, size, overflow).subscribe)

    return operator
