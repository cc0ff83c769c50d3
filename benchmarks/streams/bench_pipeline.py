"""
What does a pipeline of 1, 2, 4 and 8 stages cost, and how near does it come to its bound?

First stages that do nothing, 16 items at a time in each: items a second, and microseconds per stage
and item, of ``Pipeline``, a bare chain of ``map_async``, asyncio queues with as many workers, and
aiostream and streamz if they are installed. Then stages that sleep: total seconds, beside one item
after the other, and beside the bound, ``slowest stage x items / its slots + one way through``. A
``Pipeline`` should take at most 1.15 times the bound.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from rxdispatch import operators as ops

SLOTS = 16
ITEMS = 4_000
ROUNDS = 2
SLEEPERS = 400
STAGES = (1, 2, 4, 8)
QUEUES = "asyncio queues"
BOUND = "slowest stage x items / slots + one way through"
SECONDS = (0.02, 0.01, 0.03, 0.02, 0.01, 0.04, 0.02, 0.01)

Work = Callable[[int], Awaitable[int]]


async def nothing(item: int) -> int:
    """Do nothing."""
    return item


def sleeper(seconds: float) -> Work:
    """Return work that sleeps."""

    async def sleep(item: int) -> int:
        await asyncio.sleep(seconds)
        return item

    return sleep


async def numbers(count: int) -> AsyncIterator[int]:
    """Yield numbers."""
    for number in range(count):
        yield number


async def ours(works: list[Work], count: int) -> None:
    """The pipeline with its defaults."""
    stages = [rxd.stage(w, name=f"s{n}", max_concurrent=SLOTS) for n, w in enumerate(works)]
    async with rxd.Pipeline(*stages) as pipeline:
        await pipeline.feed(range(count))
    assert count == pipeline.stats.results


async def ours_ordered(works: list[Work], count: int) -> None:
    """The same, results in order."""
    stages = [rxd.stage(w, name=f"s{n}", max_concurrent=SLOTS) for n, w in enumerate(works)]
    async with rxd.Pipeline(*stages, ordered=True) as pipeline:
        await pipeline.feed(range(count))


async def maps(works: list[Work], count: int) -> None:
    """The operator that stages use, without queues, ids, failures and statistics."""
    stream = rxd.from_async_iterable(numbers(count))
    for work in works:
        stream = stream.pipe(ops.map_async(work, max_concurrent=SLOTS))
    await rxd.run(stream)


async def queues(works: list[Work], count: int) -> None:
    """Workers between queues of the same size."""
    line: list[asyncio.Queue[int]] = [asyncio.Queue(SLOTS) for _ in works]

    async def worker(place: int) -> None:
        mine, work = line[place], works[place]
        below = line[place + 1] if place + 1 < len(line) else None
        while True:
            result = await work(await mine.get())
            if below is not None:
                await below.put(result)
            mine.task_done()

    workers = [asyncio.create_task(worker(n)) for n in range(len(works)) for _ in range(SLOTS)]
    for number in range(count):
        await line[0].put(number)
    for queue in line:
        await queue.join()
    for task in workers:
        task.cancel()
    await asyncio.gather(*workers, return_exceptions=True)


async def aiostream(works: list[Work], count: int) -> None:
    """``aiostream.stream.map`` with a limit on tasks."""
    streams: Any = import_module("aiostream").stream
    stream = streams.iterate(numbers(count))
    for work in works:
        stream = streams.map(stream, work, ordered=False, task_limit=SLOTS)
    async with stream.stream() as items:
        async for _ in items:
            pass


async def streamz(works: list[Work], count: int) -> None:
    """``map_async`` of streamz, with the same number of items at a time in a stage."""
    made: Any = import_module("streamz").Stream(asynchronous=True)
    stream = made
    for work in works:
        stream = stream.map_async(work, parallelism=SLOTS)
    seen = 0
    all_seen = asyncio.Event()

    def see(_: Any) -> None:
        nonlocal seen
        seen += 1
        if seen == count:
            all_seen.set()

    stream.sink(see)
    for number in range(count):
        await made.emit(number, asynchronous=True)
    await all_seen.wait()


Case = Callable[[list[Work], int], Awaitable[None]]


PEERS: dict[str, Case] = {"aiostream": aiostream, "streamz": streamz}
CASES: dict[str, Case] = {
    QUEUES: queues,
    "Pipeline": ours,
    "Pipeline, ordered": ours_ordered,
    "map_async chain": maps,
    **{name: case for name, case in PEERS.items() if find_spec(name) is not None},
}
PACKAGES = tuple(PEERS)


def took(record: FigureRecord, case: Case, works: list[Work], count: int) -> float:
    """Return the seconds that a case takes."""
    calls = 0

    async def last(item: int) -> int:
        nonlocal calls
        calls += 1
        return await works[-1](item)

    async def main() -> float:
        start = time.perf_counter()
        await case([*works[:-1], last], count)
        return time.perf_counter() - start

    seconds = asyncio.run(main())
    record.control("every item came to the last stage once", calls == count)
    return seconds


def no_ops(record: FigureRecord, stages: int) -> None:
    """Record the time per stage and item when the stages do nothing."""
    count = ITEMS // stages
    best = dict.fromkeys(CASES, math.inf)
    for _ in range(ROUNDS):
        for name, case in CASES.items():
            best[name] = min(best[name], took(record, case, [nothing] * stages, count))
    for name, value in best.items():
        each = value / count / stages * 1e6
        rate = round(count / value)
        base = None if name == QUEUES else QUEUES
        ours = name == "Pipeline"
        record.add(
            name,
            each,
            "us",
            group="no-op stages, a stage and item",
            x=stages,
            base=base,
            at_most=10 if ours else None,
            judged="value",
            items_per_second=rate,
        )


def sleepers(record: FigureRecord, stages: int) -> None:
    """Record the time of all items when the stages sleep."""
    spans = SECONDS[:stages]
    bound = max(spans) * math.ceil(SLEEPERS / SLOTS) + sum(spans)
    group = "stages that sleep"
    record.add(BOUND, bound, "s", group=group, x=stages)
    record.add("one after the other", SLEEPERS * sum(spans), "s", group=group, x=stages, base=BOUND)
    for name, case in CASES.items():
        value = took(record, case, [sleeper(span) for span in spans], SLEEPERS)
        most = 1.15 if name.startswith("Pipeline") else None
        record.add(name, value, "s", group=group, x=stages, base=BOUND, at_most=most)


@pytest.mark.parametrize("stages", STAGES)
def bench_no_ops(record: FigureRecord, stages: int) -> None:
    """All in turn, with stages that do nothing."""
    record.note(slots=SLOTS, rounds=ROUNDS, items=f"{ITEMS} by stages", sleepers=SLEEPERS)
    no_ops(record, stages)


@pytest.mark.parametrize("stages", STAGES)
def bench_sleepers(record: FigureRecord, stages: int) -> None:
    """All in turn, with stages that sleep."""
    sleepers(record, stages)
