# pyright: basic
# pytest-benchmark has no types.
"""
How many no-op coroutines does ``map_async`` run a second, beside bare asyncio?

32 run at a time, from a source that emits while there is room. Bare asyncio is ``create_task`` with
a callback that starts the next task, and a semaphore with ``gather``. Beside them are aiostream's
``map`` with a limit, and RxPY's two ways with futures: ``flat_map``, which has no limit, and
``merge`` of deferred futures. Slow ways get fewer items.
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import reactivex
from aiostream import pipe, stream
from pytest_benchmark.fixture import BenchmarkFixture
from reactivex import Observable
from reactivex import operators as rx

from benchmarks.figures.record import FigureRecord
from benchmarks.streams.race import Contender, race
from benchmarks.streams.sources import numbers, pulled, total_of
from rxdispatch import operators as ops

WIDTH = 32
ITEMS = 20_000
FEW = 1_000
GROUP = "no-op coroutines, 32 at a time"
BARE = "create_task with a callback"
OURS = "map_async"


async def work(item: int) -> int:
    """Do nothing."""
    return item


async def bare(count: int) -> int:
    """Run 32 tasks at a time, each of which starts the next one when it is done."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    started = finished = total = 0

    def done(task: asyncio.Task[int]) -> None:
        nonlocal started, finished, total
        finished += 1
        total += task.result()
        if started < count:
            started += 1
            loop.create_task(work(started)).add_done_callback(done)
        elif finished == count:
            ended.set_result(None)

    while started < min(WIDTH, count):
        started += 1
        loop.create_task(work(started)).add_done_callback(done)
    await ended
    return total


async def gathered(count: int) -> int:
    """Start all tasks at once; 32 of them may work at a time."""
    limit = asyncio.Semaphore(WIDTH)

    async def limited(item: int) -> int:
        async with limit:
            return await work(item)

    return sum(await asyncio.gather(*(limited(item) for item in range(1, count + 1))))


async def ours(count: int) -> int:
    """The operator with its defaults."""
    return await total_of(numbers(count).pipe(ops.map_async(work, max_concurrent=WIDTH)))


async def ordered(count: int) -> int:
    """The operator in ordered mode."""
    operator = ops.map_async(work, max_concurrent=WIDTH, ordered=True)
    return await total_of(numbers(count).pipe(operator))


async def timed(count: int) -> int:
    """The operator with a time limit."""
    operator = ops.map_async(work, max_concurrent=WIDTH, timeout=10.0)
    return await total_of(numbers(count).pipe(operator))


async def with_aiostream(count: int) -> int:
    """Aiostream's equivalent."""
    total = 0
    fn: Any = work  # pipe.map may have several sources, so its types ask for *args.
    mapped = stream.iterate(pulled(count)) | pipe.map(fn, ordered=False, task_limit=WIDTH)
    async with mapped.stream() as items:
        async for item in items:
            total += item
    return total


async def flat_mapped(count: int) -> int:
    """RxPY without a limit."""
    loop = asyncio.get_running_loop()

    def started(item: int) -> Observable[int]:
        return reactivex.from_future(loop.create_task(work(item)))

    return await total_of(reactivex.range(1, count + 1).pipe(rx.flat_map(started)))


async def merged(count: int) -> int:
    """RxPY with a limit."""
    loop = asyncio.get_running_loop()

    def deferred(item: int) -> Observable[int]:
        return reactivex.defer(lambda _: reactivex.from_future(loop.create_task(work(item))))

    source = reactivex.range(1, count + 1)
    return await total_of(source.pipe(rx.map(deferred), rx.merge(max_concurrent=WIDTH)))


@pytest.mark.benchmark(group=GROUP)
def bench_map_async(benchmark: BenchmarkFixture, record: FigureRecord) -> None:
    """All ways in turn."""
    ways = {
        BARE: Contender(bare, ITEMS),
        "a semaphore and gather": Contender(gathered, ITEMS, BARE),
        OURS: Contender(ours, ITEMS, BARE, 0.5),
        "map_async, ordered": Contender(ordered, ITEMS, BARE),
        "map_async, timeout": Contender(timed, ITEMS, BARE),
        "aiostream: map, task_limit": Contender(with_aiostream, FEW, BARE),
        "RxPY: flat_map of futures, no limit": Contender(flat_mapped, FEW, BARE),
        # It removes items from the front of a list; with many items, only that would be measured.
        "RxPY: merge of deferred futures": Contender(merged, FEW, BARE),
    }
    best = race(benchmark, record, GROUP, ways)
    if benchmark.stats is not None:
        record.add(OURS, best[OURS], "1/s", group="by itself", at_least=100_000)
