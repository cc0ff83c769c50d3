"""
How fast ``batch`` is beside what RxPY has.

Prints items a second from a hot source to a sink, in lists of 100: nothing in between, then
RxPY's ``buffer_with_count`` and ``buffer_with_time_or_count``, then ``batch``.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from reactivex import Observable
from reactivex import operators as rx
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject

from rxdispatch.operators.flow._batch import batch

ITEMS = 60_000
COUNT = 100
TIMESPAN = 0.05
ROUNDS = 3
PAUSE = 2_000

Build = Callable[[Observable[int]], Observable[Any]]


def rate(build: Build) -> float:
    """Return items a second; the loop gets a turn now and then, so that timers fire."""

    async def main() -> float:
        source: Subject[int] = Subject()
        subscription = build(source).subscribe(lambda _: None)
        start = time.perf_counter()
        for begin in range(0, ITEMS, PAUSE):
            for n in range(begin, begin + PAUSE):
                source.on_next(n)
            await asyncio.sleep(0)
        passed = time.perf_counter() - start
        subscription.dispose()
        return ITEMS / passed

    return asyncio.run(main())


def on_asyncio(source: Observable[int]) -> Observable[Any]:
    """RxPY's operator, on the loop instead of on threads."""
    scheduler = AsyncIOScheduler(asyncio.get_running_loop())
    return source.pipe(rx.buffer_with_time_or_count(TIMESPAN, COUNT, scheduler=scheduler))


def main() -> None:
    """Measure all in turn, so that a noisy machine is noisy to all of them."""
    cases: dict[str, Build] = {
        "Subject -> sink": lambda source: source,
        "buffer_with_count": lambda source: source.pipe(rx.buffer_with_count(COUNT)),
        "buffer_with_time_or_count": on_asyncio,
        "batch": lambda source: source.pipe(batch(COUNT, TIMESPAN)),
    }
    best = dict.fromkeys(cases, 0.0)
    for _ in range(ROUNDS):
        for name, build in cases.items():
            best[name] = max(best[name], rate(build))
    floor = best["buffer_with_time_or_count"]
    for name, value in best.items():
        print(f"{name:<26} {value:>10,.0f} items/s   {value / floor:5.2f} of RxPY's")


if __name__ == "__main__":
    main()
