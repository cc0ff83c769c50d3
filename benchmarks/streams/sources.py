"""Sources and a sink of numbers for measuring operators."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.valve import Gate

__all__ = ["PAUSE", "Build", "Total", "hot", "numbers", "pulled", "total_of"]

#: Numbers that a hot source emits before the loop runs.
PAUSE = 2_000

Build = Callable[[Observable[int]], Observable[Any]]


class Total:
    """A sink that adds up the items."""

    def __init__(self) -> None:
        self.value = 0

    def add(self, item: int) -> None:
        """Take an item."""
        self.value += item


def numbers(count: int) -> Observable[int]:
    """Emit numbers as the valve downstream has room."""

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


async def pulled(count: int) -> AsyncIterator[int]:
    """Yield the numbers from 1 to *count*."""
    for number in range(1, count + 1):
        yield number


def hot(build: Build, taken: Callable[[Any], None]) -> Callable[[int], Awaitable[None]]:
    """
    Return a function that pushes numbers from a Subject through an operator.

    The loop runs now and then, so that timers fire; items that the operator still holds at the end
    are emitted when the source completes.
    """

    async def push(count: int) -> None:
        source: Subject[int] = Subject()
        ended = asyncio.get_running_loop().create_future()

        def completed() -> None:
            ended.set_result(None)

        build(source).subscribe(taken, on_completed=completed)
        for begin in range(0, count, PAUSE):
            for number in range(begin + 1, min(begin + PAUSE, count) + 1):
                source.on_next(number)
            await asyncio.sleep(0)
        source.on_completed()
        await ended

    return push


async def total_of(source: Observable[int]) -> int:
    """Return the sum of all items; the subscriber always has room."""
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    total = Total()

    def completed() -> None:
        ended.set_result(None)

    valve = Gate(lambda: sys.maxsize, None)
    source.subscribe(
        total.add, ended.set_exception, completed, scheduler=LoopScheduler(loop, valve=valve)
    )
    await ended
    return total.value
