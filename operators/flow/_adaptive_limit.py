"""``AdaptiveLimit``: finds the concurrency at which the latency of a service begins to rise."""

from __future__ import annotations

import math
from statistics import median

from rxdispatch.checks import integer, is_finite
from rxdispatch.errors import ConfigError

__all__ = ["AdaptiveLimit"]


class AdaptiveLimit:
    """
    A ``max_concurrent`` that adapts to latency: additive increase, multiplicative decrease.

    While the typical latency is near the best one known, the limit grows by one for each round
    of items; until the first decrease it doubles instead. When the latency is above *tolerance*
    times the best one, or when an item timed out, the limit is multiplied by *backoff*. So the
    limit stays near the knee, where latency begins to rise: beyond it, more items at once only
    wait for each other. The limit does not grow unless it is reached. Every 50 rounds it is halved
    for one round, to measure the best latency again: the service may have changed.

    The idea comes from Netflix's concurrency-limits and from TCP Vegas. Latency is the median of
    a round, so a few slow items change nothing.

    An instance learns from all streams that use it, and each of them may have ``limit`` items at
    work: share one only between streams that use the same service, on the same loop.

    Args:
        minimum: The lowest limit, at least 1.
        maximum: The highest limit.
        initial: The first limit; *minimum* by default.
        tolerance: A latency of up to this many times the best one counts as near it; above 1.
        backoff: The factor of a decrease, between 0 and 1.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> limit = AdaptiveLimit(maximum=100)
        >>> for _ in range(50):
        ...     limit.ended(0.1, in_flight=limit.limit, dropped=False)
        >>> limit.limit
        16
        >>> limit.ended(5.0, in_flight=16, dropped=True)
        >>> limit.limit
        12
    """

    __slots__ = (
        "_backoff",
        "_best",
        "_busiest",
        "_ignore",
        "_limit",
        "_maximum",
        "_minimum",
        "_resume",
        "_rounds",
        "_samples",
        "_starting",
        "_tolerance",
    )

    def __init__(
        self,
        *,
        minimum: int = 1,
        maximum: int = 1000,
        initial: int | None = None,
        tolerance: float = 1.25,
        backoff: float = 0.8,
    ) -> None:
        integer("minimum", minimum)
        integer("maximum", maximum)
        if maximum < minimum:
            raise ConfigError(f"maximum must be >= minimum ({minimum})", maximum)
        first = minimum if initial is None else initial
        integer("initial", first, minimum, maximum)
        if not is_finite(tolerance) or not tolerance > 1:
            raise ConfigError("tolerance must be a finite number > 1", tolerance)
        if not is_finite(backoff) or not 0 < backoff < 1:
            raise ConfigError("backoff must be a number between 0 and 1", backoff)
        self._minimum = minimum
        self._maximum = maximum
        self._limit = first
        self._tolerance = tolerance
        self._backoff = backoff
        self._best = math.inf
        self._starting = True
        self._samples: list[float] = []
        self._busiest = 0
        # How many items that began under the previous limit have not ended yet.
        self._ignore = 0
        # The limit to return to after a probe, or 0; and the rounds since the last probe.
        self._resume = self._rounds = 0

    @property
    def limit(self) -> int:
        """How many items may be at work now."""
        return self._limit

    @property
    def maximum(self) -> int:
        """The largest value that ``limit`` can have."""
        return self._maximum

    @property
    def latency(self) -> float:
        """The best typical latency known, in seconds; infinite before the first round."""
        return self._best

    def ended(self, seconds: float, *, in_flight: int, dropped: bool) -> None:
        """
        Learn from an item that has ended.

        Args:
            seconds: How long it was at work.
            in_flight: How many were at work when it ended, itself included.
            dropped: Whether it timed out; if so, *seconds* is ignored.
        """
        if self._ignore > 0:
            self._ignore -= 1
            return
        if dropped:
            self._decrease(in_flight)
            return
        self._samples.append(seconds)
        self._busiest = max(self._busiest, in_flight)
        # A round has as many items as may be at work, but at least enough for a median.
        if len(self._samples) >= min(max(_ROUND, self._limit), _LONGEST):
            self._judge(in_flight)

    def _judge(self, in_flight: int) -> None:
        typical = median(self._samples)
        used = self._busiest >= self._limit
        self._samples.clear()
        self._busiest = 0
        if self._resume:
            # Measured with half as many at work: the latency of the service without a queue.
            self._best = typical
            self._limit, self._resume = self._resume, 0
            return
        if self._limit == self._minimum:
            # Fewer cannot be tried, so this is the best latency. Search for the knee again.
            self._starting = self._starting or typical > self._best * self._tolerance
            self._best = typical
        self._best = min(self._best, typical)
        self._rounds += 1
        if typical > self._best * self._tolerance:
            self._decrease(in_flight)
        elif used and self._limit < self._maximum:
            grown = self._limit * 2 if self._starting else self._limit + 1
            self._limit = min(self._maximum, grown)
        if self._rounds >= _PROBE:
            self._rounds = 0
            self._resume = self._limit
            self._limit = max(self._minimum, self._limit // 2)
            self._ignore = max(0, in_flight - 1)

    def _decrease(self, in_flight: int) -> None:
        self._starting = False
        self._resume = 0
        self._samples.clear()
        self._busiest = 0
        # The latency of items still at work is that of the old limit.
        self._ignore = max(0, in_flight - 1)
        self._limit = max(self._minimum, min(self._limit - 1, int(self._limit * self._backoff)))

    def __repr__(self) -> str:
        return f"AdaptiveLimit(limit={self._limit}, {self._minimum} to {self._maximum})"


# The fewest and the most items of a round, and the rounds between two probes.
_ROUND = 10
_LONGEST = 200
_PROBE = 50
