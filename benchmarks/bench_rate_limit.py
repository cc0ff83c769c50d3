"""
What ``rate_limit`` costs an item.

Prints microseconds of processor time an item from a source that can wait to a sink: a bare loop
that awaits a token bucket, the stream without the operator, then with it - while tokens never
run out, while they always do, and behind a backlog of 10,000 and of 100,000 items.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from reactivex.subject import Subject
from structlog.testing import capture_logs

from benchmarks.bench_map_async import numbers
from rxdispatch.clock import LoopScheduler
from rxdispatch.operators.flow._rate_limit import rate_limit
from rxdispatch.streams import run
from rxdispatch.valve import Gate

ITEMS = 50_000
ROUNDS = 3
PLENTY = 10**9
# So that a token is there whenever it is asked for, but the bucket is empty all the time.
SCARCE = 20_000_000

Case = Callable[[int], Awaitable[None]]


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


async def bare(count: int) -> None:
    """A loop that awaits a token for each item."""
    bucket = Bucket(PLENTY, PLENTY)
    for _ in range(count):
        await bucket.take()


async def bare_scarce(count: int) -> None:
    """The same with a bucket that is empty all the time."""
    bucket = Bucket(SCARCE, 1)
    for _ in range(count):
        await bucket.take()


async def nothing(count: int) -> None:
    """The source and the sink."""
    await run(numbers(count))


async def plenty(count: int) -> None:
    """Tokens never run out."""
    await run(numbers(count).pipe(rate_limit(PLENTY)))


async def scarce(count: int) -> None:
    """The bucket is empty after each item; what was due in a turn of the loop goes at once."""
    await run(numbers(count).pipe(rate_limit(SCARCE, burst=1_000)))


async def backlog(count: int) -> None:
    """All items are pushed while there is no room below, then go."""
    room = 0
    gate = Gate(lambda: room, None)
    source: Subject[int] = Subject()
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    source.pipe(rate_limit(PLENTY)).subscribe(
        on_completed=lambda: ended.set_result(None), scheduler=LoopScheduler(loop, valve=gate)
    )
    for n in range(count):
        source.on_next(n)
    source.on_completed()
    room = 1
    gate.opened()
    await ended


def cost(case: Case, count: int) -> float:
    """Return microseconds an item."""

    async def main() -> float:
        start = time.process_time()
        await case(count)
        return (time.process_time() - start) / count * 1e6

    with capture_logs():
        return asyncio.run(main())


def main() -> None:
    """Measure all in turn, so that a noisy machine is noisy to all of them."""
    cases: tuple[tuple[str, Case, int], ...] = (
        ("bare loop, tokens to spare", bare, ITEMS),
        ("bare loop, none to spare", bare_scarce, ITEMS),
        ("source -> sink", nothing, ITEMS),
        ("rate_limit, tokens to spare", plenty, ITEMS),
        ("rate_limit, none to spare", scarce, ITEMS),
        ("rate_limit, 10,000 wait", backlog, 10_000),
        ("rate_limit, 100,000 wait", backlog, 100_000),
    )
    best = {name: float("inf") for name, _, _ in cases}
    for _ in range(ROUNDS):
        for name, case, count in cases:
            best[name] = min(best[name], cost(case, count))
    for name, value in best.items():
        print(f"{name:<30} {value:6.2f} us/item")


if __name__ == "__main__":
    main()
