# pyright: basic
# pytest-benchmark has no types.
"""
What do operators that hold, time or share items cost, beside their nearest equivalents?

Items a second, or resubscriptions a second for ``retry_backoff``. Buffers, time limits and
``broadcast`` get the items from a Subject, and downstream is never busy; ``bench_buffers.py``
measures waiting and overflowing buffers. The baseline of buffers is RxPY's ``map`` and ``filter``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

import pytest
from aiostream import pipe, stream
from pytest_benchmark.fixture import BenchmarkFixture
from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.disposable import Disposable
from reactivex.scheduler.eventloop import AsyncIOScheduler

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.streams.race import Contender, race
from benchmarks.streams.sources import PAUSE, Build, Total, hot, pulled, total_of
from rxdispatch import operators as ops

ITEMS = 20_000
FEW = 4_000
TRIES = 500
SIZE = PAUSE
SUBSCRIBERS = 4
LONG = 60.0
SHORT = 1e-6
FLOOR = "RxPY: map and filter"
RX_TIMEOUT = "RxPY: timeout"
RX_SHARE = "RxPY: share"
LOOP = "a loop that sleeps for a microsecond"


def pushed(build: Build) -> Callable[[int], Awaitable[int]]:
    """Return a way that pushes numbers through an operator."""

    async def run(count: int) -> int:
        total = Total()
        await hot(build, total.add)(count)
        return total.value

    return run


async def queued(count: int) -> int:
    """A queue that a coroutine reads."""
    queue: asyncio.Queue[int] = asyncio.Queue(SIZE)
    total = Total()

    async def take() -> None:
        for _ in range(count):
            total.add(await queue.get())

    taking = asyncio.create_task(take())
    for number in range(1, count + 1):
        await queue.put(number)
    await taking
    return total.value


async def awaited_in_time(count: int) -> int:
    """Each ``anext`` has a time limit."""
    total = Total()
    items = pulled(count)
    while True:
        try:
            async with asyncio.timeout(LONG):
                total.add(await anext(items))
        except StopAsyncIteration:
            return total.value


async def aiostream_in_time(count: int) -> int:
    """Aiostream's equivalent."""
    total = Total()
    async with (stream.iterate(pulled(count)) | pipe.timeout(LONG)).stream() as items:
        async for item in items:
            total.add(item)
    return total.value


def rx_timeout(source: Observable[int]) -> Observable[int]:
    """RxPY's time limit, on the loop."""
    return source.pipe(rx.timeout(LONG, scheduler=AsyncIOScheduler(asyncio.get_running_loop())))


def shared(build: Build) -> Callable[[int], Awaitable[int]]:
    """Return a way to several subscribers; the items of one are added up."""

    def subscribed(source: Observable[int]) -> Observable[int]:
        one = build(source)
        for _ in range(SUBSCRIBERS - 1):
            one.subscribe(lambda _: None)
        return one

    return pushed(subscribed)


def failing(operator: Callable[[int], Build]) -> Callable[[int], Awaitable[int]]:
    """Return a way whose subscriptions each emit their number and then fail, except the last."""

    async def run(count: int) -> int:
        tries = 0

        def subscribe(
            observer: abc.ObserverBase[int], _: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            nonlocal tries
            tries += 1
            observer.on_next(tries)
            if tries == count:
                observer.on_completed()
            else:
                observer.on_error(ValueError("again"))
            return Disposable()

        source: Observable[int] = Observable(subscribe)
        return await total_of(source.pipe(operator(count)))

    return run


async def tried_again(count: int) -> int:
    """A loop with a pause."""
    total = Total()
    for number in range(1, count + 1):
        try:
            total.add(number)
            raise ValueError("again")
        except ValueError:
            await asyncio.sleep(SHORT)
    return total.value


def ours_again(count: int) -> Callable[[Observable[int]], Observable[int]]:
    """``retry_backoff`` with the shortest pauses."""
    pauses = rxd.Backoff(first=SHORT, factor=1.0, maximum=SHORT, attempts=count, jitter=0.0)
    return ops.retry_backoff(pauses, retry_on=ValueError)


def passing() -> Mapping[str, Contender]:
    """Return ways through operators that hold a bounded number of items."""
    floor = pushed(lambda source: source.pipe(rx.map(lambda n: n), rx.filter(lambda _: True)))
    return {
        FLOOR: Contender(floor, ITEMS),
        "buffer_bounded": Contender(pushed(ops.buffer_bounded(SIZE)), ITEMS, FLOOR),
        "conflate": Contender(pushed(ops.conflate()), ITEMS, FLOOR),
        "asyncio.Queue, put and get": Contender(queued, ITEMS, FLOOR),
        "RxPY: observe_on": Contender(pushed(observed), FEW, FLOOR),
    }


def observed(source: Observable[int]) -> Observable[int]:
    """RxPY's hand-over: a timer of the loop for each item."""
    return source.pipe(rx.observe_on(AsyncIOScheduler(asyncio.get_running_loop())))


def in_time() -> Mapping[str, Contender]:
    """Return ways with a time limit on each gap between items."""
    return {
        RX_TIMEOUT: Contender(pushed(rx_timeout), FEW),
        "timeout_idle": Contender(pushed(ops.timeout_idle(LONG)), ITEMS, RX_TIMEOUT),
        "asyncio.timeout around anext": Contender(awaited_in_time, ITEMS, RX_TIMEOUT),
        "aiostream: timeout": Contender(aiostream_in_time, FEW, RX_TIMEOUT),
    }


def to_many() -> Mapping[str, Contender]:
    """Return ways to several subscribers."""
    return {
        RX_SHARE: Contender(shared(rx.share()), ITEMS),
        "broadcast": Contender(shared(ops.broadcast(SIZE)), ITEMS, RX_SHARE),
    }


def again() -> Mapping[str, Contender]:
    """Return ways to subscribe again after an error."""
    return {
        LOOP: Contender(tried_again, TRIES),
        "RxPY: retry, no pause": Contender(failing(lambda _: rx.retry()), TRIES, LOOP),
        "retry_backoff": Contender(failing(ours_again), TRIES, LOOP),
    }


GROUPS: Mapping[str, Callable[[], Mapping[str, Contender]]] = {
    "hold": passing,
    "limit of time": in_time,
    f"{SUBSCRIBERS} subscribers": to_many,
    "subscribe again": again,
}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.benchmark(group="flow")
def bench_flow(benchmark: BenchmarkFixture, record: FigureRecord, group: str) -> None:
    """All ways of a group in turn."""
    race(benchmark, record, group, GROUPS[group]())
