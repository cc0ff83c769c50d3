"""
Does an item cost more when more items wait?

For each operator that buffers: with a full backlog, one more item arrives and one leaves, again and
again. The figures are microseconds for that step with 10,000 and with 200,000 waiting items (or
``--size``), and the ratio; the budget is a ratio of 1.2. *Filling* is the cost of an item that
joins the backlog, averaged over all its items. Bare deques of the same length show the effect of
the machine's caches.

Last, 50,000 items (or ``--size``) flow through a chain of operators into a slow sink; the memory
that this takes must not depend on their number.
"""

from __future__ import annotations

import asyncio
import gc
import resource
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from reactivex import Observable
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from benchmarks.figures.record import FigureRecord
from rxdispatch.clock import LoopScheduler
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.operators.flow._conflate import conflate
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._prioritize import prioritize
from rxdispatch.streams._from_async_iterable import from_async_iterable
from rxdispatch.streams._ingress import Ingress
from rxdispatch.streams._run import run
from rxdispatch.valve import Gate

FEW, MANY = 10_000, 200_000
STEPS = 30_000
ROUNDS = 2
ITEMS = 50_000

Push = Callable[[int], object]
Costs = tuple[float, float]
Case = Callable[[int], Costs]


class ValvedStream:
    """A stream whose valve lets one item through at a time."""

    def __init__(self, source: Observable[int], push: Push) -> None:
        self._room = 0
        self._gate = Gate(lambda: self._room, None)
        self._push = push
        scheduler = LoopScheduler(asyncio.get_running_loop(), valve=self._gate)
        self._subscription = source.subscribe(self._take, scheduler=scheduler)

    def _take(self, _: int) -> None:
        self._room = 0

    def measure(self, size: int) -> Costs:
        """Return the microseconds per item, of filling and of a step."""
        push, gate = self._push, self._gate
        gc.collect()
        start = time.process_time()
        for n in range(size):
            push(n)
        filled = time.process_time()
        for n in range(size, size + STEPS):
            push(n)
            self._room = 1
            gate.opened()
        ended = time.process_time()
        self._subscription.dispose()
        return (filled - start) / size * 1e6, (ended - filled) / STEPS * 1e6


def through(operator: Callable[[int], Callable[[Observable[int]], Observable[int]]]) -> Case:
    """Return a case for an operator that has room for the backlog."""

    def case(size: int) -> Costs:
        async def main() -> Costs:
            source: Subject[int] = Subject()
            return ValvedStream(source.pipe(operator(size + 1)), source.on_next).measure(size)

        return asyncio.run(main())

    return case


def ingress(size: int) -> Costs:
    """An ingress."""

    async def main() -> Costs:
        way_in = Ingress[int](size + 1)
        way = ValvedStream(way_in, way_in.offer)
        await asyncio.sleep(0)
        return way.measure(size)

    return asyncio.run(main())


def bare(size: int) -> Costs:
    """A deque and nothing else."""
    line: deque[int] = deque()
    start = time.process_time()
    for n in range(size):
        line.append(n)
    filled = time.process_time()
    for n in range(size, size + STEPS):
        line.append(n)
        line.popleft()
    return (filled - start) / size * 1e6, (time.process_time() - filled) / STEPS * 1e6


CASES: dict[str, Case] = {
    "deque": bare,
    "buffer_bounded": through(buffer_bounded),
    "conflate, all keys": through(lambda _: conflate(key=lambda n: n)),
    "prioritize, 10 keys": through(lambda size: prioritize(lambda n: n % 10, size=size)),
    "Ingress": ingress,
}


def compare(record: FigureRecord, sizes: tuple[int, int]) -> None:
    """Record the costs at both sizes, and their ratio."""
    best: dict[tuple[str, int], Costs] = {}
    for _ in range(ROUNDS):
        for name, case in CASES.items():
            for size in sizes:
                filling, step = case(size)
                before = best.get((name, size), (float("inf"), float("inf")))
                best[name, size] = (min(filling, before[0]), min(step, before[1]))
    for name in CASES:
        for part, what in enumerate(("filling", "a step")):
            few, many = (best[name, size][part] for size in sizes)
            base = f"{name}, {sizes[0]:,} wait"
            record.add(base, few, "us", group=what)
            record.add(
                f"{name}, {sizes[1]:,} wait",
                many,
                "us",
                group=what,
                base=base,
                at_most=1.2 if part and name != "deque" else None,
            )


def flood(record: FigureRecord, count: int) -> None:
    """Pull *count* items through a chain into a slow sink; record the memory that this takes."""
    sent = most = taken = 0

    async def numbers() -> AsyncIterator[int]:
        nonlocal sent
        for n in range(count):
            sent += 1
            yield n

    async def slow(items: list[Any]) -> int:
        nonlocal most
        most = max(most, sent - taken)
        await asyncio.sleep(0)
        return len(items)

    def note(items: int) -> None:
        nonlocal taken
        taken += items

    async def same(items: list[int]) -> list[int]:
        return items

    def more(n: int) -> int:
        return n + 1

    def positive(n: int) -> bool:
        return n > 0

    async def main() -> None:
        batches = from_async_iterable(numbers()).pipe(
            rx.map(more),
            rx.filter(positive),
            batch(100, 1.0),
            map_async(same, max_concurrent=8),
        )
        await run(
            batches.pipe(
                buffer_bounded(10),
                map_async(slow, max_concurrent=2),
                rx.do_action(note),
            )
        )

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    asyncio.run(main())
    passed = time.process_time() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    record.control("every item of the flood came through", taken == count)
    group = f"a flood of {count:,}"
    record.add("processor time an item", passed / count * 1e6, "us", group=group)
    record.add("items held at most", most, "items", group=group)
    record.add("more memory", grown, "KiB", group=group)


def bench_waiting(record: FigureRecord, size: int | None) -> None:
    """Operators with few and with many items waiting."""
    sizes = (FEW, size or MANY)
    record.note(sizes=sizes, steps=STEPS, rounds=ROUNDS)
    with capture_logs():
        compare(record, sizes)


def bench_flood(record: FigureRecord, size: int | None) -> None:
    """A chain of operators with a slow sink."""
    with capture_logs():
        flood(record, size or ITEMS)
