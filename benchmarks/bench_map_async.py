"""
How much ``map_async`` costs on top of asyncio.

Prints no-op coroutines a second, 32 at a time: a bare ``create_task`` with a callback, then
``map_async`` from a source that can wait, and RxPY's ``merge`` over deferred futures.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import reactivex
from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.disposable import Disposable

from rxdispatch.clock import valve_of
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.streams import run

WIDTH = 32
ITEMS = 40_000
ROUNDS = 3


async def work(item: int) -> int:
    """Do nothing."""
    return item


async def bare(count: int) -> None:
    """Run so many tasks at a time, each of which starts the next one when it is done."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    started = finished = 0

    def done(_: asyncio.Task[int]) -> None:
        nonlocal started, finished
        finished += 1
        if started < count:
            started += 1
            loop.create_task(work(started)).add_done_callback(done)
        elif finished == count:
            ended.set_result(None)

    while started < WIDTH:
        started += 1
        loop.create_task(work(started)).add_done_callback(done)
    await ended


def numbers(count: int) -> Observable[int]:
    """Emit as many numbers as there is room for."""

    def subscribe(
        observer: abc.ObserverBase[int], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        valve = valve_of(scheduler)
        assert valve is not None
        sent = 0

        def on_room() -> None:
            nonlocal sent
            while sent < count and valve.room() > 0:
                sent += 1
                observer.on_next(sent)
            if sent == count:
                sent += 1
                observer.on_completed()

        link = valve.listen(on_room)
        on_room()
        return Disposable(link.dispose)

    return Observable(subscribe)


async def ours(count: int) -> None:
    """The operator with its defaults."""
    await run(numbers(count).pipe(map_async(work, max_concurrent=WIDTH)))


async def ours_ordered(count: int) -> None:
    """The operator in ordered mode."""
    await run(numbers(count).pipe(map_async(work, max_concurrent=WIDTH, ordered=True)))


async def ours_timed(count: int) -> None:
    """The operator with a time limit."""
    await run(numbers(count).pipe(map_async(work, max_concurrent=WIDTH, timeout=10.0)))


async def rxpy(count: int) -> None:
    """What RxPY offers."""
    loop = asyncio.get_running_loop()

    def deferred(item: int) -> Observable[int]:
        return reactivex.defer(lambda _: reactivex.from_future(loop.create_task(work(item))))

    # It takes items out of the front of a list, so many at once would measure that.
    count = min(count, 10_000)
    await run(reactivex.range(count).pipe(rx.map(deferred), rx.merge(max_concurrent=WIDTH)))


def rate(run_it: Callable[[int], Awaitable[None]], count: int) -> float:
    """Return items a second."""

    async def main() -> float:
        start = time.perf_counter()
        await run_it(count)
        return count / (time.perf_counter() - start)

    return asyncio.run(main())


def main() -> None:
    """Measure all in turn, so that a noisy machine is noisy to all of them."""
    cases = (
        ("create_task + callback", bare, ITEMS),
        ("map_async", ours, ITEMS),
        ("map_async, ordered", ours_ordered, ITEMS),
        ("map_async, timeout", ours_timed, ITEMS),
        ("RxPY merge of futures", rxpy, 5_000),
    )
    best = {name: 0.0 for name, _, _ in cases}
    for _ in range(ROUNDS):
        for name, case, count in cases:
            best[name] = max(best[name], rate(case, count))
    floor = best[cases[0][0]]
    for name, value in best.items():
        print(f"{name:<24} {value:>10,.0f} items/s   {value / floor:5.2f} of bare")


if __name__ == "__main__":
    main()
