# pyright: basic
# pytest-benchmark has no types.
"""
What does ``rate_limit`` cost, beside a bare loop that awaits a token bucket?

Items a second from a source that heeds demand to a sink: with tokens to spare, with a bucket that
is always empty, and with a backlog of 10,000 and 100,000 items that was pushed while downstream was
busy and then leaves at once. The rates are so high that items never wait for a token, so the cost
of the operator itself is measured.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from reactivex.subject import Subject

from benchmarks.figures.record import FigureRecord
from benchmarks.streams.race import Contender, race
from benchmarks.streams.sources import Build, Total, numbers, total_of
from rxdispatch import operators as ops
from rxdispatch.clock import LoopScheduler
from rxdispatch.valve import Gate

ITEMS = 20_000
PLENTY = 10**9
#: So fast that a token is always there in time, although the bucket is always empty.
SCARCE = 20_000_000
GROUP = "token bucket"
BUCKET = "bare loop, tokens to spare"
EMPTY = "bare loop, none to spare"


def drawn(build: Build) -> Callable[[int], Awaitable[int]]:
    """Return a way through an operator from a source that heeds demand."""

    async def run(count: int) -> int:
        return await total_of(build(numbers(count)))

    return run


class Bucket:
    """The simplest token bucket for coroutines."""

    def __init__(self, count: int, burst: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._rate = count
        self._burst = float(burst)
        self._tokens = float(burst)
        self._at = self._loop.time()

    async def take(self) -> None:
        """Wait for a token."""
        while True:
            now = self._loop.time()
            self._tokens = min(self._burst, self._tokens + (now - self._at) * self._rate)
            self._at = now
            if self._tokens >= 1:
                self._tokens -= 1
                return
            await asyncio.sleep((1 - self._tokens) / self._rate)


def bucket(rate: int, burst: int) -> Callable[[int], Awaitable[int]]:
    """Return a loop that awaits a token for each item."""

    async def run(count: int) -> int:
        tokens, total = Bucket(rate, burst), Total()
        for number in range(1, count + 1):
            await tokens.take()
            total.add(number)
        return total.value

    return run


async def backlog(count: int) -> int:
    """Push all items while downstream is busy, then let it take them."""
    room = 0
    gate = Gate(lambda: room, None)
    source: Subject[int] = Subject()
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    total = Total()
    source.pipe(ops.rate_limit(PLENTY)).subscribe(
        total.add,
        on_completed=lambda: ended.set_result(None),
        scheduler=LoopScheduler(loop, valve=gate),
    )
    for number in range(1, count + 1):
        source.on_next(number)
    source.on_completed()
    room = 1
    gate.opened()
    await ended
    return total.value


@pytest.mark.benchmark(group=GROUP)
def bench_rate_limit(benchmark: BenchmarkFixture, record: FigureRecord) -> None:
    """All ways in turn."""
    few = "rate_limit, 10,000 wait"
    scarce = drawn(ops.rate_limit(SCARCE, burst=1_000))
    ways = {
        BUCKET: Contender(bucket(PLENTY, PLENTY), ITEMS),
        EMPTY: Contender(bucket(SCARCE, 1), ITEMS),
        "source to sink": Contender(drawn(lambda source: source), ITEMS, BUCKET),
        "rate_limit, tokens to spare": Contender(drawn(ops.rate_limit(PLENTY)), ITEMS, BUCKET),
        "rate_limit, none to spare": Contender(scarce, ITEMS, EMPTY),
        few: Contender(backlog, 10_000),
        "rate_limit, 100,000 wait": Contender(backlog, 100_000, few),
    }
    race(benchmark, record, GROUP, ways)
