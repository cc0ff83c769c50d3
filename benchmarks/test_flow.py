# pyright: basic
# pytest-benchmark has no types.
"""
What do operators that hold, limit or share items cost, beside their nearest equivalents?

Items a second; resubscriptions for ``retry_backoff``. Buffers, time limits and ``broadcast`` get
them from a Subject, and downstream is never busy; ``bench_buffers.py`` has what waits and what
overflows. ``rate_limit`` reads a source that can wait, beside a bare loop that awaits a bucket:
tokens that never run out, tokens that always do, and a backlog that goes at once. The floor of each
group does what is least: RxPY's ``map`` and ``filter``, or the bare loop.
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
from reactivex.subject import Subject

import rxdispatch as rxd
from benchmarks.race import Way, race
from benchmarks.record import Record
from benchmarks.sources import PAUSE, Build, hot, numbers, pulled
from rxdispatch import operators as ops
from rxdispatch.clock import LoopScheduler
from rxdispatch.valve import Gate

ITEMS = 20_000
FEW = 4_000
TRIES = 500
SIZE = PAUSE
SUBSCRIBERS = 4
LONG = 60.0
SHORT = 1e-6
PLENTY = 10**9
#: So that a token is there whenever it is asked for, but the bucket is empty all the time.
SCARCE = 20_000_000
FLOOR = "RxPY: map and filter"
RX_TIMEOUT = "RxPY: timeout"
RX_SHARE = "RxPY: share"
BUCKET = "bare loop, tokens to spare"
EMPTY = "bare loop, none to spare"
LOOP = "a loop that sleeps for a microsecond"


class Total:
    """A sink that adds up."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, item: int) -> None:
        """Take an item."""
        self.value += item


def pushed(build: Build) -> Callable[[int], Awaitable[int]]:
    """Return a way that pushes numbers through an operator."""

    async def run(count: int) -> int:
        total = Total()
        await hot(build, total.add)(count)
        return total.value

    return run


def drawn(build: Build) -> Callable[[int], Awaitable[int]]:
    """Return a way through an operator from a source that can wait."""

    async def run(count: int) -> int:
        total = Total()
        await rxd.run(build(numbers(count)).pipe(rx.do_action(total.add)))
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
    """Each ``anext`` has a limit."""
    total = Total()
    items = pulled(count)
    while True:
        try:
            async with asyncio.timeout(LONG):
                total.add(await anext(items))
        except StopAsyncIteration:
            return total.value


async def aiostream_in_time(count: int) -> int:
    """What aiostream offers."""
    total = Total()
    async with (stream.iterate(pulled(count)) | pipe.timeout(LONG)).stream() as items:
        async for item in items:
            total.add(item)
    return total.value


def rx_timeout(source: Observable[int]) -> Observable[int]:
    """RxPY's time limit, on the loop."""
    return source.pipe(rx.timeout(LONG, scheduler=AsyncIOScheduler(asyncio.get_running_loop())))


def shared(build: Build) -> Callable[[int], Awaitable[int]]:
    """Return a way to several subscribers, of which one is listened to."""

    def subscribed(source: Observable[int]) -> Observable[int]:
        one = build(source)
        for _ in range(SUBSCRIBERS - 1):
            one.subscribe(lambda _: None)
        return one

    return pushed(subscribed)


class Bucket:
    """The least that a token bucket of a coroutine has to do."""

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
    """All items are pushed while there is no room below, then go."""
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


def failing(operator: Callable[[int], Build]) -> Callable[[int], Awaitable[int]]:
    """Return a way that fails at each subscription but the last; each emits its number before."""

    async def run(count: int) -> int:
        tries = 0
        total = Total()

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
        await rxd.run(source.pipe(operator(count), rx.do_action(total.add)))
        return total.value

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


def passing() -> Mapping[str, Way]:
    """Return ways through what holds a bounded number of items."""
    floor = pushed(lambda source: source.pipe(rx.map(lambda n: n), rx.filter(lambda _: True)))
    return {
        FLOOR: Way(floor, ITEMS),
        "buffer_bounded": Way(pushed(ops.buffer_bounded(SIZE)), ITEMS, FLOOR),
        "conflate": Way(pushed(ops.conflate()), ITEMS, FLOOR),
        "asyncio.Queue, put and get": Way(queued, ITEMS, FLOOR),
        "RxPY: observe_on": Way(pushed(observed), FEW, FLOOR),
    }


def observed(source: Observable[int]) -> Observable[int]:
    """RxPY's hand-over: a timer of the loop for each item."""
    return source.pipe(rx.observe_on(AsyncIOScheduler(asyncio.get_running_loop())))


def in_time() -> Mapping[str, Way]:
    """Return ways with a limit on each gap."""
    return {
        RX_TIMEOUT: Way(pushed(rx_timeout), FEW),
        "timeout_idle": Way(pushed(ops.timeout_idle(LONG)), ITEMS, RX_TIMEOUT),
        "asyncio.timeout around anext": Way(awaited_in_time, ITEMS, RX_TIMEOUT),
        "aiostream: timeout": Way(aiostream_in_time, FEW, RX_TIMEOUT),
    }


def to_many() -> Mapping[str, Way]:
    """Return ways to several subscribers."""
    return {
        RX_SHARE: Way(shared(rx.share()), ITEMS),
        "broadcast": Way(shared(ops.broadcast(SIZE)), ITEMS, RX_SHARE),
    }


def limited() -> Mapping[str, Way]:
    """Return ways through a token bucket."""
    few = "rate_limit, 10,000 wait"
    scarce = drawn(ops.rate_limit(SCARCE, burst=1_000))
    return {
        BUCKET: Way(bucket(PLENTY, PLENTY), ITEMS),
        EMPTY: Way(bucket(SCARCE, 1), ITEMS),
        "source to sink": Way(drawn(lambda source: source), ITEMS, BUCKET),
        "rate_limit, tokens to spare": Way(drawn(ops.rate_limit(PLENTY)), ITEMS, BUCKET),
        "rate_limit, none to spare": Way(scarce, ITEMS, EMPTY),
        few: Way(backlog, 10_000),
        "rate_limit, 100,000 wait": Way(backlog, 100_000, few),
    }


def again() -> Mapping[str, Way]:
    """Return ways to begin anew after an error."""
    return {
        LOOP: Way(tried_again, TRIES),
        "RxPY: retry, no pause": Way(failing(lambda _: rx.retry()), TRIES, LOOP),
        "retry_backoff": Way(failing(ours_again), TRIES, LOOP),
    }


GROUPS: Mapping[str, Callable[[], Mapping[str, Way]]] = {
    "hold": passing,
    "limit of time": in_time,
    f"{SUBSCRIBERS} subscribers": to_many,
    "token bucket": limited,
    "subscribe again": again,
}


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.benchmark(group="flow")
def test_flow(benchmark: BenchmarkFixture, record: Record, group: str) -> None:
    """All ways of a group in turn."""
    race(benchmark, record, group, GROUPS[group]())
