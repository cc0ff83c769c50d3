"""A subscriber that sometimes raises loses nothing, on a loop that is late."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import Observable
from reactivex.subject import Subject
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.clock import LoopScheduler
from rxdispatch.testing import VirtualTimeLoop, no_leaks, run_virtual
from rxdispatch.valve import Gate

ITEMS = 20


async def slow(item: int) -> int:
    """Return *item* after 0, 10 or 20 ms."""
    await asyncio.sleep(0.01 * (item % 3))
    return item


def soon(item: int) -> float:
    """Return a time 20 ms from now."""
    del item
    return asyncio.get_running_loop().time() + 0.02


def third(item: int) -> int:
    """Return one of three keys."""
    return item % 3


def same(item: int) -> int:
    """Return a key that no other item has."""
    return item


OPERATORS: dict[str, Callable[[], Callable[[Observable[int]], Observable[Any]]]] = {
    "rate_limit": lambda: ops.rate_limit(50, burst=3),
    "delay_until": lambda: ops.delay_until(soon),
    "map_async": lambda: ops.map_async(slow, max_concurrent=3),
    "map_async ordered": lambda: ops.map_async(slow, max_concurrent=3, ordered=True),
    "map_async key": lambda: ops.map_async(slow, max_concurrent=3, key=third),
    "buffer_bounded": lambda: ops.buffer_bounded(5),
    "prioritize": lambda: ops.prioritize(third, size=5),
    "conflate": lambda: ops.conflate(key=same),
    "batch": lambda: ops.batch(3, 0.05),
    "measure": lambda: ops.measure(rxd.Meter("hostile"), ops.map_async(slow)),
    "retry_backoff": ops.retry_backoff,
    "timeout_idle": lambda: ops.timeout_idle(100.0),
}


class Hostile:
    """A subscriber that raises at some items, and has room for some."""

    def __init__(self, rng: Random, bounded: bool) -> None:
        self.rng = rng
        self.got: list[int] = []
        self.ends = 0
        self.room = rng.choice([0, 1, 3]) if bounded else 1000
        self.gate = Gate(lambda: self.room, None)

    def on_next(self, item: Any) -> None:
        """Keep the item, then perhaps raise."""
        self.room -= 1
        # ``batch`` emits lists.
        items: list[int] = item if item.__class__ is list else [item]
        self.got += items
        if self.rng.random() < 0.3:
            raise ValueError(item)

    def on_end(self, *_: Any) -> None:
        """Count the ends."""
        self.ends += 1

    def open(self, items: int) -> None:
        """Make room, which may emit an item, at which the subscriber may raise."""
        self.room += items
        tolerate(self.gate.opened)


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore the error."""


def tolerate(act: Callable[..., object], *args: Any) -> None:
    """Call *act* like a producer that goes on after errors."""
    try:
        act(*args)
    except ValueError:
        pass


@pytest.mark.parametrize("name", OPERATORS)
@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), turn=st.sampled_from([0.0, 0.001, 0.01]), bounded=st.booleans())
def test_nothing_is_lost(name: str, seed: int, turn: float, bounded: bool) -> None:
    """Each item comes once, then the end comes once, and nothing is left over."""

    async def main() -> Hostile:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        # Errors in the loop's callbacks are reported here.
        loop.set_exception_handler(_ignore)
        rng = Random(seed)
        async with no_leaks():
            hostile = Hostile(rng, bounded)
            source: Subject[int] = Subject()
            source.pipe(OPERATORS[name]()).subscribe(
                hostile.on_next,
                hostile.on_end,
                hostile.on_end,
                scheduler=LoopScheduler(loop, valve=hostile.gate),
            )
            for n in range(ITEMS):
                tolerate(source.on_next, n)
                if rng.random() < 0.3:
                    await asyncio.sleep(rng.random() * 0.05)
                if rng.random() < 0.3:
                    hostile.open(rng.choice([0, 1, 2]))
                if rng.random() < 0.1:
                    loop.advance(0.1)
            tolerate(source.on_completed)
            for _ in range(60):
                hostile.open(5)
                await asyncio.sleep(0.1)
            hostile.gate.dispose()
        return hostile

    with capture_logs():
        hostile = run_virtual(main(), turn=turn)
    assert (list(range(ITEMS)), 1) == (sorted(hostile.got), hostile.ends)
