"""``Counters`` and ``FeedStats``: every counter is reported unchanged."""

from __future__ import annotations

from typing import Any, cast

import attrs
import pytest

from rxdispatch.nodes.feed.stats import Counters, FeedStats, RedisLatency


def test_nothing_yet() -> None:
    """All counters are zero, and nothing divides by zero."""
    stats = Counters().read(0, 0.0)
    assert {0} == {
        getattr(stats, field.name) for field in attrs.fields(FeedStats) if field.name != "redis"
    }
    assert RedisLatency(count=0, p50=0.0, p95=0.0, p99=0.0) == stats.redis


def test_each_number_has_its_place() -> None:
    """Each counter is reported under its own name."""
    counters: Any = Counters()
    names: list[str] = [
        name for name in cast("dict[str, int]", vars(counters)) if not name.startswith("_")
    ]
    for value, name in enumerate(names, 1):
        setattr(counters, name, value)
    stats = counters.read(7, 1.5)
    assert {name: value for value, name in enumerate(names, 1)} == {
        name: getattr(stats, name) for name in names
    }
    assert (7, 1.5) == (stats.nodes, stats.staleness)
    assert {*names, "nodes", "staleness", "redis"} == {f.name for f in attrs.fields(FeedStats)}


def test_latencies() -> None:
    """The percentiles are those of the last 1,024 calls; the count includes all calls."""
    counters = Counters()
    for n in range(1000):
        counters.took(100.0 + n)
    for n in reversed(range(1024)):
        counters.took(n / 1000)
    assert RedisLatency(count=2024, p50=0.512, p95=0.972, p99=1.013) == counters.read(0, 0).redis
    one = Counters()
    one.took(0.25)
    assert RedisLatency(count=1, p50=0.25, p95=0.25, p99=0.25) == one.read(0, 0).redis


def test_frozen() -> None:
    """Stats that were read do not change later."""
    stats: Any = Counters().read(0, 0.0)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        stats.nodes = 1
