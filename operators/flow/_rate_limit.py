"""The ``rate_limit`` operator: a token bucket."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from contextvars import Context
from datetime import timedelta
from typing import TypeVar

from reactivex import Observable, abc

from rxdispatch.checks import integer
from rxdispatch.operators._subscription import operator_of
from rxdispatch.operators.flow._timed import Timed
from rxdispatch.seconds import seconds

__all__ = ["rate_limit"]

T = TypeVar("T")


def rate_limit(
    count: int, per: float | timedelta = 1.0, *, burst: int | None = None
) -> Callable[[Observable[T]], Observable[T]]:
    """
    Emit at most *count* items every *per* seconds, with bursts of up to *burst* items.

    ::

        --123456-----------7|
        [ rate_limit(1, 3s, burst=2) ]
        --12--3--4--5--6--7|

    A bucket holds up to *burst* tokens and is full at first. Each item takes one, and a new one
    comes every ``per / count`` seconds. So after a pause up to *burst* items are emitted at once,
    and in any time *t* no more than ``burst + count * t / per``. With ``burst=1`` items are never
    closer to each other than ``per / count``.

    Tokens are counted by the loop's clock, not by timers: after the loop was blocked, no more
    than *burst* items are emitted at once, and rounding errors do not add up. A full bucket takes
    no more tokens, so with ``burst=1`` a late timer makes the next item late too; a larger bucket
    makes up for it.

    A source that can wait is asked for as many items as there are tokens while there is room
    below, so nothing waits here: an operator above, such as ``conflate``, decides what is taken
    when there is a token again. If any other source pushes more, the items are kept in order, and
    ``no_demand`` is logged once when more than *burst* wait. Each item is emitted under the
    ``contextvars`` it was pushed under.

    Args:
        count: How many items, at least 1.
        per: In how many seconds.
        burst: How many tokens the bucket holds, at least 1; *count* by default. To keep up the
            rate, the bucket must last for as long as the source takes to fetch an item.

    Raises:
        ConfigError: If an argument breaks its rule.

    Completion waits until all items are emitted. An error is passed on at once; the held items
    are dropped and logged as ``items_dropped``. Disposal drops them.

    Example:
        >>> import reactivex
        >>> from rxdispatch.streams import run
        >>> from rxdispatch.testing import run_virtual
        >>> async def main() -> float:
        ...     await run(reactivex.range(100).pipe(rate_limit(10, burst=1)))
        ...     return asyncio.get_running_loop().time()
        >>> import asyncio
        >>> from structlog.testing import capture_logs
        >>> with capture_logs():
        ...     run_virtual(main())
        9.9
    """
    integer("count", count)
    span = seconds("per", per, zero=False)
    size = count if burst is None else burst
    integer("burst", size, instead=" or None")

    return operator_of(lambda observer, scheduler: _Limiter(count, span, size, observer, scheduler))


class _Limiter(Timed[T]):
    """
    One subscription of ``rate_limit``.

    ``_spent`` tokens were taken since ``_since``, when the bucket was full; it is full again at
    ``_full``. All times are computed from there, in one step, so that rounding errors do not add
    up. ``_left`` tokens are known to be in the bucket; the clock is read only when there are none.
    """

    def __init__(
        self,
        count: int,
        per: float,
        burst: int,
        observer: abc.ObserverBase[T],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__("rate_limit", burst, observer, scheduler)
        self._count = count
        self._per = per
        self._burst = self._left = burst
        self._since = self._full = self.loop.time()
        self._spent = 0
        self._waiting: deque[tuple[T, Context]] = deque()
        self._time = self.loop.time

    def on_next(self, item: T) -> None:
        if self._waiting or self.emitting or self.closed or self._left <= 0 or not self.open():
            super().on_next(item)
            return
        # It does not wait, so it needs no copy of its context.
        self._spend(self._time())
        self.emitting = True
        try:
            self.observer.on_next(item)
        except BaseException:
            self.resume_soon()
            raise
        finally:
            self.emitting = False
        if self.exhausted or self._waiting:
            self.drain()

    def keep(self, item: T, context: Context) -> bool:
        self._waiting.append((item, context))
        # Otherwise the timer of the items before it is set.
        return len(self._waiting) == 1

    def next_time(self) -> float:
        return self._when(1)

    def waits_until(self) -> float | None:
        # Also while nothing is held: the source waits for a token.
        return self._when(1) if self._left <= 0 else None

    def ready(self, now: float) -> int:
        if self._left <= 0:
            self._refill(now)
        return min(self._left, len(self._waiting))

    def take(self) -> tuple[T, Context]:
        # Read the clock again, because the subscriber may have blocked the loop.
        self._spend(self._time())
        return self._waiting.popleft()

    def room(self) -> int:
        if self._left <= 0:
            self._refill(self.now())
        return self._left - len(self._waiting)

    def count(self) -> int:
        return len(self._waiting)

    def clear(self) -> None:
        self._waiting.clear()

    def _when(self, tokens: int) -> float:
        """When the bucket will hold *tokens*, or did."""
        return self._since + (self._spent - self._burst + tokens) * self._per / self._count

    def _refill(self, now: float) -> None:
        """Count the tokens that have come, computed like the timers, so that both round alike."""
        if now < self._when(1):
            return
        come = (now - self._since) * self._count / self._per
        # At an extreme rate it is infinite.
        new = self._spent if come >= self._spent else max(1, math.floor(come))
        self._left = min(self._burst, max(1, self._burst - self._spent + new))

    def _spend(self, now: float) -> None:
        # Not at the very moment it gets full: counting on adds no rounding error.
        if now > self._full:
            self._since = now
            self._spent = 0
            self._left = self._burst
        self._spent = spent = self._spent + 1
        self._left = left = self._left - 1
        self._full = self._since + spent * self._per / self._count
        if left <= 0:
            self._refill(now)
            if self._left <= 0:
                # Held items and the source wait for the next token.
                self.wake_at(self._when(1))
