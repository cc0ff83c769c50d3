"""``Meter``: the counts, rates and latencies of ``measure``."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import attrs

from rxdispatch.errors import ConfigError

__all__ = ["Latency", "Measurement", "Meter", "MeteredStream"]

WINDOW = 5.0
"""Seconds; a rate covers the last one to two windows."""

_STEPS = 8
_LEAST = 1e-6
_BUCKETS = _STEPS * 40


@attrs.frozen(slots=True, kw_only=True)
class Latency:
    """
    How long items took, in seconds; all values are 0 until an item has come out.

    Percentiles are accurate to 9 %, the other values are as exact as the clock.

    Args:
        count: How many items were timed.
        mean: The average.
        p50: Half of the items took no longer.
        p95: All but one in twenty took no longer.
        p99: All but one in a hundred took no longer.
        maximum: The longest.
    """

    count: int
    mean: float
    p50: float
    p95: float
    p99: float
    maximum: float


@attrs.frozen(slots=True, kw_only=True)
class Measurement:
    """
    A reading of a meter.

    Args:
        name: The name of the meter.
        streams: How many subscriptions there are now.
        entered: How many items went in.
        left: How many came out; the same as *entered* if there is no section.
        in_flight: How many are between entry and exit now.
        rate_in: Items per second that went in, over the last 5 to 10 s.
        rate: Items per second that came out, over the same time.
        latency: From entry to exit.
        completed: How many subscriptions have completed.
        errors: How many have failed.
    """

    name: str
    streams: int
    entered: int
    left: int
    in_flight: int
    rate_in: float
    rate: float
    latency: Latency
    completed: int
    errors: int


class MeteredStream:
    """The items in flight of one measured subscription."""

    __slots__ = ("live",)

    def __init__(self) -> None:
        # Ids of tokens, in a set: tokens may be dropped in any thread, and a set is safe for that.
        self.live: set[int] = set()


class Meter:
    """
    Counts what passes a ``measure`` operator; may serve many subscriptions.

    Args:
        name: Its name; not empty.

    Raises:
        ConfigError: If *name* is not a string or empty.

    Example:
        >>> Meter("parse").read().entered
        0
    """

    def __init__(self, name: str) -> None:
        if name.__class__ is not str or not name:
            raise ConfigError("name must be a string that is not empty", name)
        self.name = name
        self._time: Callable[[], float] = time.monotonic
        self._open: dict[MeteredStream, None] = {}
        self.reset()

    def reset(self) -> None:
        """Set all counts to 0; items in flight stay in flight."""
        self._entered = self._left = self._completed = self._errors = 0
        self._rate_in, self._rate = _Rate(), _Rate()
        self._timed = 0
        self._total = self._longest = 0.0
        self._buckets: dict[int, int] = {}

    def read(self) -> Measurement:
        """Return the current numbers."""
        now = self._time()
        sections = tuple(self._open)
        return Measurement(
            name=self.name,
            streams=len(sections),
            entered=self._entered,
            left=self._left,
            in_flight=sum(len(section.live) for section in sections),
            rate_in=self._rate_in.read(now),
            rate=self._rate.read(now),
            latency=self._latency(),
            completed=self._completed,
            errors=self._errors,
        )

    # ------------------------------------------------ for the operator

    @property
    def _in_use(self) -> bool:
        """Whether it measures a running stream."""
        return bool(self._open)

    def _begin(self, section: MeteredStream, time: Callable[[], float]) -> None:
        """Start measuring a subscription on a loop with this clock."""
        self._time = time
        self._open[section] = None
        now = time()
        self._rate_in.begin(now)
        self._rate.begin(now)

    def _end(
        self, section: MeteredStream, *, completed: bool = False, failed: bool = False
    ) -> None:
        """Stop measuring a subscription; its items are no longer in flight."""
        if section in self._open:
            del self._open[section]
            self._completed += completed
            self._errors += failed

    def _enter(self, now: float) -> None:
        """Count an item at the entry."""
        self._entered += 1
        self._rate_in.count(now)

    def _leave(self, now: float) -> None:
        """Count an item at the exit."""
        self._left += 1
        self._rate.count(now)

    def _took(self, seconds: float) -> None:
        """Add a latency."""
        self._timed += 1
        self._total += seconds
        self._longest = max(self._longest, seconds)
        bucket = math.ceil(math.log2(seconds / _LEAST) * _STEPS) if seconds > _LEAST else 0
        bucket = min(bucket, _BUCKETS)
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1

    def _latency(self) -> Latency:
        timed = self._timed
        return Latency(
            count=timed,
            mean=self._total / timed if timed else 0.0,
            p50=self._percentile(0.5),
            p95=self._percentile(0.95),
            p99=self._percentile(0.99),
            maximum=self._longest,
        )

    def _percentile(self, share: float) -> float:
        wanted = self._timed * share
        for bucket, items in sorted(self._buckets.items()):
            wanted -= items
            if wanted <= 0:
                return min(self._longest, _LEAST * 2 ** (bucket / _STEPS))
        return self._longest


class _Rate:
    """Events per second in the current window and the one before."""

    __slots__ = ("_before", "_begin", "_count", "_start")

    def __init__(self) -> None:
        self._begin: float | None = None
        self._start = 0.0
        self._count = self._before = 0

    def begin(self, now: float) -> None:
        # A clock that went back belongs to another loop.
        if self._begin is None or now < self._begin:
            self._begin = self._start = now
            self._count = self._before = 0

    def count(self, now: float) -> None:
        if now - self._start >= WINDOW:
            self._roll(now)
        self._count += 1

    def read(self, now: float) -> float:
        if self._begin is None:
            return 0.0
        self._roll(now)
        passed = now - max(self._begin, self._start - WINDOW)
        return (self._count + self._before) / passed if passed > 0 else 0.0

    def _roll(self, now: float) -> None:
        windows = int((now - self._start) // WINDOW)
        if windows > 0:
            self._before = self._count if windows == 1 else 0
            self._count = 0
            self._start += windows * WINDOW
