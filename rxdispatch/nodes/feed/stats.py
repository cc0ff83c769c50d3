"""``FeedStats``: the counters of a feed."""

from __future__ import annotations

from collections import deque
from typing import Final

import attrs

__all__ = ["Counters", "FeedStats", "RedisLatency"]

_WINDOW: Final = 1024


@attrs.frozen(slots=True, kw_only=True)
class RedisLatency:
    """
    Percentiles of the feed's last 1,024 calls to the server, in seconds; 0 before the first.

    Args:
        count: Calls since the feed was entered.
    """

    count: int
    p50: float
    p95: float
    p99: float


@attrs.frozen(slots=True, kw_only=True)
class FeedStats:
    """
    The counters of a feed since it was entered.

    Args:
        nodes: Nodes in memory.
        hits_l1: Reads answered from memory while the feed was provably current.
        hits_l2: Reads answered from memory while the snapshot was the source.
        hits_redis: Reads that the server answered in time.
        hits_stale: Reads answered from memory without a proof.
        misses: Reads of nodes that do not exist.
        check_timeouts: Calls of ``fetch`` or ``fetch_many`` that the server did not answer within
            ``FeedSettings.check_timeout``.
        messages: Messages that were applied.
        malformed: Messages or rows that were dropped because they could not be parsed.
        gaps: Times that a message showed that changes were missed. What a pulse or a new
            connection showed counts in *catch_ups* alone.
        catch_ups: Times that the feed fetched missed changes.
        relists: Times that it read the whole fleet again.
        reconnects: Times that it subscribed again after a lost connection.
        mode_switches: Changes of the mode.
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
    """The live counters behind :class:`FeedStats`; each part of the feed counts here."""

    def __init__(self) -> None:
        self.hits_l1 = self.hits_l2 = self.hits_redis = self.hits_stale = self.misses = 0
        self.check_timeouts = self.messages = self.malformed = 0
        self.gaps = self.catch_ups = self.relists = self.reconnects = self.mode_switches = 0
        self._calls = 0
        self._latencies: deque[float] = deque(maxlen=_WINDOW)

    @property
    def calls(self) -> int:
        """The number of calls that the server has answered."""
        return self._calls

    def took(self, seconds: float) -> None:
        """Count a call to the server."""
        self._calls += 1
        self._latencies.append(seconds)

    def read(self, nodes: int, staleness: float) -> FeedStats:
        """Return the counters as they are now."""
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
