# pyright: basic
# pytest-benchmark has no types.
"""
How fast does ``batch`` make lists, beside the operators of RxPY?

Items a second from a Subject to a sink, in lists of 100 or after 50 ms; the loop runs after each
2,000 items, so that timers fire. Beside it RxPY's ``buffer_with_count``, which has no timer, its
``buffer_with_time_or_count`` on the loop, a hand-written loop that reads an ``asyncio.Queue`` with
a deadline, and aiostream's ``chunks``, which has no timer and pulls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiostream import pipe, stream
from pytest_benchmark.fixture import BenchmarkFixture
from reactivex import Observable
from reactivex import operators as rx
from reactivex.scheduler.eventloop import AsyncIOScheduler

from benchmarks.figures.record import FigureRecord
from benchmarks.streams.race import Contender, race
from benchmarks.streams.sources import PAUSE, Build, hot, pulled
from rxdispatch import operators as ops

ITEMS = 40_000
COUNT = 100
TIMESPAN = 0.05
GROUP = "lists of 100"
BASE = "RxPY: buffer_with_time_or_count"


def on_asyncio(source: Observable[int]) -> Observable[Any]:
    """RxPY's operator, on the loop instead of threads."""
    scheduler = AsyncIOScheduler(asyncio.get_running_loop())
    return source.pipe(rx.buffer_with_time_or_count(TIMESPAN, COUNT, scheduler=scheduler))


def pushed(build: Build) -> Callable[[int], Awaitable[int]]:
    """Return a way that pushes numbers through an operator that makes lists."""

    async def run(count: int) -> int:
        total = 0

        def add(items: list[int]) -> None:
            nonlocal total
            total += sum(items)

        await hot(build, add)(count)
        return total

    return run


async def by_hand(count: int) -> int:
    """A loop with a deadline for each list."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    async def take() -> int:
        total = taken = 0
        while taken < count:
            items = [await queue.get()]
            deadline = loop.time() + TIMESPAN
            try:
                async with asyncio.timeout_at(deadline):
                    while len(items) < COUNT and taken + len(items) < count:
                        items.append(await queue.get())
            except TimeoutError:
                pass
            taken += len(items)
            total += sum(items)
        return total

    taking = asyncio.create_task(take())
    for begin in range(0, count, PAUSE):
        for number in range(begin + 1, min(begin + PAUSE, count) + 1):
            queue.put_nowait(number)
        await asyncio.sleep(0)
    return await taking


async def with_aiostream(count: int) -> int:
    """Aiostream's equivalent."""
    total = 0
    async with (stream.iterate(pulled(count)) | pipe.chunks(COUNT)).stream() as lists:
        async for items in lists:
            total += sum(items)
    return total


@pytest.mark.benchmark(group=GROUP)
def bench_batch(benchmark: BenchmarkFixture, record: FigureRecord) -> None:
    """All ways in turn."""
    count = pushed(lambda source: source.pipe(rx.buffer_with_count(COUNT)))
    ours = pushed(lambda source: source.pipe(ops.batch(COUNT, TIMESPAN)))
    ways = {
        BASE: Contender(pushed(on_asyncio), ITEMS),
        "RxPY: buffer_with_count": Contender(count, ITEMS, BASE),
        "asyncio.Queue with a deadline": Contender(by_hand, ITEMS, BASE),
        "aiostream: chunks": Contender(with_aiostream, ITEMS // 4, BASE),
        "batch": Contender(ours, ITEMS, BASE, 3.0),
    }
    race(benchmark, record, GROUP, ways)
