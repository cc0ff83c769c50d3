"""``FeedStats``: what a feed has counted."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

__all__ = ["Counters", "FeedStats", "RedisLatency"]

_WINDOW: Final = 1024


@attrs.frozen(slots=True, kw_only=True)
class RedisLatency:
    """
    How long the feed's last 1,024 calls to the server took, in seconds; 0 without any.

    Args:
        count: How many calls there were, ever.
    """

    count: int
    p50: float
    p95: float
    p99: float


@attrs.frozen(slots=True, kw_only=True)
class FeedStats:
    """
    What a feed has counted since it was entered.

    Args:
        nodes: How many nodes it knows.
        hits_l1: Reads that were answered from memory, being provably current.
        hits_l2: Reads that were answered from memory while the snapshot was the source.
        hits_redis: Reads for which the server was asked, and answered in time.
        hits_stale: Reads that were answered from memory without a proof.
        misses: Reads of nodes that do not exist.
        check_timeouts: Version checks that took longer than ``FeedSettings.check_timeout``.
        messages: Messages that were applied.
        malformed: Messages or rows that were dropped because they could not be read.
        gaps: How often it was noticed that something had been missed.
        catch_ups: How often what was missed was fetched.
        relists: How often the whole fleet was read again.
        reconnects: How often the subscription was confirmed anew.
        mode_switches: How often the mode has changed.
        staleness: Seconds since the last proof that nothing was missed.
        redis: How long calls to the server took.
    """

    nodes: int
    hits_l1: int
    hits_l2: int
    hits_redis: int
    hits_stale: int
    misses: int
    check_timeouts: int
    messages: int
    malformed: int
    gaps: int
    catch_ups: int
    relists: int
    reconnects: int
    mode_switches: int
    staleness: float
    redis: RedisLatency


class Counters:
    """The numbers behind :class:`FeedStats`; whoever does something counts it here."""

    def __init__(self) -> None:
        self.hits_l1 = self.hits_l2 = self.hits_redis = self.hits_stale = self.misses = 0
        self.check_timeouts = self.messages = self.malformed = 0
        self.gaps = self.catch_ups = self.relists = self.reconnects = self.mode_switches = 0
        self._calls = 0
        self._latencies: deque[float] = deque(maxlen=_WINDOW)

    @property
    def calls(self) -> int:
        """How many calls to the server have been answered."""
        return self._calls

    def took(self, seconds: float) -> None:
        """Take note of a call to the server."""
        self._calls += 1
        self._latencies.append(seconds)

    def read(self, nodes: int, staleness: float) -> FeedStats:
        """Return the numbers as they are now."""
        return FeedStats(
            nodes=nodes,
            hits_l1=self.hits_l1,
            hits_l2=self.hits_l2,
            hits_redis=self.hits_redis,
            hits_stale=self.hits_stale,
            misses=self.misses,
            check_timeouts=self.check_timeouts,
            messages=self.messages,
            malformed=self.malformed,
            gaps=self.gaps,
            catch_ups=self.catch_ups,
            relists=self.relists,
            reconnects=self.reconnects,
            mode_switches=self.mode_switches,
            staleness=staleness,
            redis=self._latency(),
        )

    def _latency(self) -> RedisLatency:
        ordered = sorted(self._latencies)

        def share(part: float) -> float:
            return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0

        return RedisLatency(count=self._calls, p50=share(0.5), p95=share(0.95), p99=share(0.99))
