"""The ``buffer_bounded`` operator: a bounded queue with an overflow policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from reactivex import Observable, abc

from rxdispatch.operators._subscription import operator_of
from rxdispatch.operators.flow._buffering import Buffering
from rxdispatch.operators.flow._queue_drain import Fifo
from rxdispatch.overflow import Drops, Overflow, checked_overflow, checked_size, reason_of

__all__ = ["buffer_bounded"]

T = TypeVar("T")


def buffer_bounded(
    size: int, overflow: Overflow[T] = "wait"
) -> Callable[[Observable[T]], Observable[T]]:
    """
    Hold up to *size* items while downstream is busy; *overflow* is the policy for the others.

    ::

        --1-2-3-4-5------------|
        [ buffer_bounded(2,    ]
        [    "drop_oldest")    ]   busy after 1
        --1-------------4--5---|

    Downstream is busy while the valve below has no room. Without a valve below it is never busy,
    and items pass straight through. Each item is emitted under the ``contextvars`` it was pushed
    under.

    The valves of other operators close when the valve below closes; the valve of a buffer stays
    open. With ``"wait"`` it closes when the buffer is full, so a source that can wait is asked
    for as much as fits. If any other source pushes more, the items are kept and ``no_demand`` is
    logged once. With the other policies it never closes.

    Args:
        size: How many items may wait, at least 1.
        overflow: ``"wait"`` closes the valve. ``"drop_oldest"`` drops the item that has waited
            longest and ``"drop_newest"`` the one that does not fit; each burst is logged as
            ``items_dropped`` with their number. ``"error"`` ends the stream with
            ``BufferOverflowError``. A callable gets each item that does not fit.

    Raises:
        ConfigError: If an argument breaks its rule.

    Completion waits until all items are emitted. An error, even if *overflow* raised it, is
    passed on at once; the items that wait are dropped and logged. Disposal drops them.

    Example:
        >>> import asyncio, reactivex
        >>> from reactivex import operators as rx
        >>> from structlog.testing import capture_logs
        >>> from rxdispatch.operators.flow._map_async import map_async
        >>> from rxdispatch.streams import run
        >>> async def slow(n: int) -> int:
        ...     await asyncio.sleep(0.001)
        ...     return n
        >>> stream = reactivex.range(100).pipe(
        ...     buffer_bounded(2, "drop_oldest"), map_async(slow, max_concurrent=1), rx.to_list()
        ... )
        >>> with capture_logs():
        ...     asyncio.run(run(stream))
        [0, 98, 99]
    """
    checked_size(size)
    checked_overflow(overflow)
    reason = reason_of(overflow)

    def make(observer: abc.ObserverBase[T], scheduler: abc.SchedulerBase | None) -> Buffering[T]:
        drops = Drops("buffer_bounded", reason)
        return Buffering(
            "buffer_bounded", observer, scheduler, Fifo(), drops=drops, size=size, overflow=overflow
        )

    return operator_of(make)
