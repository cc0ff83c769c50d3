# pyright: basic
# pytest-benchmark has no types.
"""``race``: runs several ways to do the same thing in turn, and compares their rates."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import attrs
from pytest_benchmark.fixture import BenchmarkFixture
from structlog.testing import capture_logs

from benchmarks.figures.record import FigureRecord

__all__ = ["ROUNDS", "Contender", "race"]

ROUNDS = 3


@attrs.frozen
class Contender:
    """
    One way to send numbers through a stream.

    Attributes:
        run: Sends the numbers from 1 to its argument, and returns the sum of those that arrived.
        count: The number of numbers.
        base: The name of the way that it is compared with.
        at_least: The least ratio to the rate of *base*.
    """

    run: Callable[[int], Awaitable[int]]
    count: int
    base: str | None = None
    at_least: float | None = None


def race(
    benchmark: BenchmarkFixture, record: FigureRecord, group: str, ways: Mapping[str, Contender]
) -> dict[str, float]:
    """Measure all in turn; record and return the best rate of each."""
    took: dict[str, list[float]] = {name: [] for name in ways}

    async def one(way: Contender) -> float:
        start = time.perf_counter()
        total = await way.run(way.count)
        seconds = time.perf_counter() - start
        record.control("every number came once", total == way.count * (way.count + 1) // 2)
        return seconds

    def turn() -> None:
        for name, way in ways.items():
            # Operators log it when a source ignores demand.
            with capture_logs():
                took[name].append(way.count / asyncio.run(one(way)))

    benchmark.pedantic(turn, rounds=ROUNDS, warmup_rounds=1 if benchmark.enabled else 0)
    best = {name: max(rates) for name, rates in took.items()}
    if benchmark.stats is None:
        return best
    for name, way in ways.items():
        row: dict[str, Any] = {"base": way.base, "at_least": way.at_least}
        median = statistics.median(took[name])
        record.add(name, best[name], "1/s", group=group, **row, median=median)
    return best
