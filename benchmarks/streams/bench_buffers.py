"""
What does an item cost in ``buffer_bounded``, ``conflate`` and their like?

Microseconds per item, from a hot source to a sink. *Passing*: downstream is never busy. *Waiting*:
each item waits, 500 at a time, until downstream has room. *Overflow*: nine of ten items find the
buffer full. Beside them are the nearest equivalents of RxPY, aiostream and bare asyncio. The budget
for ``buffer_bounded`` and ``conflate`` is 3 us on a machine on which RxPY takes 1.2 us from a
Subject through ``map`` and ``filter`` to a sink. Ratios are to that time, so the budget is a ratio
of 2.5. Times are processor time, so that other programs on the machine matter less.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any

import reactivex
from aiostream import pipe, stream
from reactivex import Observable
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from benchmarks.figures.record import FigureRecord
from rxdispatch.clock import LoopScheduler
from rxdispatch.operators.flow._broadcast import broadcast
from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.operators.flow._conflate import conflate
from rxdispatch.operators.flow._prioritize import prioritize
from rxdispatch.streams._from_async_iterable import from_async_iterable
from rxdispatch.streams._from_iterable import from_iterable
from rxdispatch.streams._ingress import Ingress
from rxdispatch.streams._run import run
from rxdispatch.streams._to_async_iterable import to_async_iterable
from rxdispatch.valve import Gate

PACKAGES = ("aiostream",)
ITEMS = 20_000
ROUNDS = 3
CHUNK = 500
REFERENCE = 1.2
BUDGET = 3.0

Operator = Callable[[Observable[Any]], Observable[Any]]
Case = Callable[[int], Awaitable[None]]


def sink(*_: object) -> None:
    """Take an item."""


def same(n: int) -> int:
    """Return the item."""
    return n


def anything(_: int) -> bool:
    """Keep every item."""
    return True


def passing(operator: Operator) -> Case:
    """Push through *operator* while downstream is never busy."""

    async def case(count: int) -> None:
        source: Subject[int] = Subject()
        source.pipe(operator).subscribe(sink)
        for n in range(count):
            source.on_next(n)
        source.on_completed()

    return case


def waiting(operator: Operator, chunk: int = CHUNK) -> Case:
    """Push *chunk* items while downstream is busy, then let it take them, and so on."""

    async def case(count: int) -> None:
        room = 0
        gate = Gate(lambda: room, None)
        source: Subject[int] = Subject()
        scheduler = LoopScheduler(asyncio.get_running_loop(), valve=gate)
        source.pipe(operator).subscribe(sink, scheduler=scheduler)
        for begin in range(0, count, chunk):
            for n in range(begin, begin + chunk):
                source.on_next(n)
            room = sys.maxsize
            gate.opened()
            room = 0
        source.on_completed()

    return case


async def queue(count: int) -> None:
    """A bounded queue, filled and emptied in turn."""
    items: asyncio.Queue[int] = asyncio.Queue(CHUNK)
    for begin in range(0, count, CHUNK):
        for n in range(begin, begin + CHUNK):
            items.put_nowait(n)
        while not items.empty():
            sink(items.get_nowait())


async def numbers(count: int) -> AsyncIterator[int]:
    """Yield the numbers below *count*."""
    for n in range(count):
        yield n


async def bare_loop(count: int) -> None:
    """``async for`` over an async generator."""
    async for n in numbers(count):
        sink(n)


async def aiostream_map(count: int) -> None:
    """The cheapest operator of aiostream."""
    async with (stream.iterate(numbers(count)) | pipe.map(sink)).stream() as items:
        async for _ in items:
            pass


async def pulled(count: int) -> None:
    """``from_async_iterable``, with the demand of a buffer."""
    await run(from_async_iterable(numbers(count)).pipe(buffer_bounded(CHUNK)))


async def iterated(count: int) -> None:
    """``from_iterable``, with the demand of a buffer."""
    await run(from_iterable(range(count)).pipe(buffer_bounded(CHUNK)))


async def read(count: int) -> None:
    """``to_async_iterable`` over ``from_async_iterable``."""
    async with aclosing(to_async_iterable(from_async_iterable(numbers(count)))) as items:
        async for n in items:
            sink(n)


async def put(count: int) -> None:
    """``Ingress.put`` with a subscriber that is never busy."""
    ingress = Ingress[int](CHUNK)
    running = asyncio.create_task(run(ingress))
    await asyncio.sleep(0)
    for n in range(count):
        await ingress.put(n)
    ingress.close()
    await running


async def rxpy_observe_on(count: int) -> None:
    """RxPY's operator for handing items over: a timer of the loop for each."""
    scheduler = LoopScheduler(asyncio.get_running_loop())
    await run(reactivex.range(count).pipe(rx.observe_on(scheduler)))


FLOOR = "RxPY: map -> filter"

CASES: dict[str, Case] = {
    "bare: async for": bare_loop,
    "bare: asyncio.Queue, nowait": queue,
    "aiostream: iterate | map": aiostream_map,
    "RxPY: Subject -> sink": passing(lambda source: source),
    FLOOR: passing(lambda source: source.pipe(rx.map(same), rx.filter(anything))),
    "RxPY: share": passing(rx.share()),
    "RxPY: observe_on": rxpy_observe_on,
    "buffer_bounded, passing": passing(buffer_bounded(CHUNK)),
    "buffer_bounded, waiting": waiting(buffer_bounded(CHUNK, "drop_newest")),
    "buffer_bounded, overflow": waiting(buffer_bounded(CHUNK // 10, "drop_oldest")),
    "conflate, passing": passing(conflate()),
    "conflate, 10 keys": waiting(conflate(key=lambda n: n % 10)),
    "conflate, as many keys": waiting(conflate(key=lambda n: n)),
    "prioritize, 10 keys": waiting(prioritize(lambda n: n % 10, size=CHUNK)),
    "prioritize, as many keys": waiting(prioritize(lambda n: -n, size=CHUNK)),
    "broadcast, 1 subscriber": passing(broadcast(CHUNK)),
    "broadcast, waiting": waiting(broadcast(CHUNK)),
    "from_iterable": iterated,
    "from_async_iterable": pulled,
    "from + to_async_iterable": read,
    "Ingress.put": put,
}


def cost(case: Case, count: int) -> float:
    """Return microseconds per item."""

    async def main() -> float:
        start = time.process_time()
        await case(count)
        return (time.process_time() - start) / count * 1e6

    return asyncio.run(main())


def bench_buffers(record: FigureRecord, size: int | None) -> None:
    """All in turn, so that noise of the machine affects all."""
    items = size or ITEMS
    record.note(items=items, rounds=ROUNDS)
    best = dict.fromkeys(CASES, float("inf"))
    # Operators log what they drop.
    with capture_logs():
        for _ in range(ROUNDS):
            for name, case in CASES.items():
                best[name] = min(best[name], cost(case, items))
    record.add(FLOOR, best.pop(FLOOR), "us")
    for name, value in best.items():
        ours = name.startswith(("buffer_bounded", "conflate"))
        record.add(name, value, "us", base=FLOOR, at_most=BUDGET / REFERENCE if ours else None)
