"""
Does a long stream need more memory than a short one?

A source of 200,000 items, or ``--size`` (ten million take some minutes), goes through ``map``,
``filter``, ``batch``, ``map_async`` and ``batch`` into a slow sink. Recorded are the most items in
flight, and the growth of the process: after the first tenth, and at the end.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

import psutil
import reactivex
from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.disposable import Disposable

from benchmarks.figures.record import FigureRecord
from rxdispatch.clock import valve_of
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.streams import run

ITEMS = 200_000


class WaitingSource:
    """A source of *count* rows of about a hundred bytes, which heeds demand."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0

    def stream(self) -> Observable[bytes]:
        """Return the source."""

        def subscribe(
            observer: abc.ObserverBase[bytes], scheduler: abc.SchedulerBase | None = None
        ) -> abc.DisposableBase:
            valve = valve_of(scheduler)
            assert valve is not None
            busy = False

            def emit() -> None:
                nonlocal busy
                if busy:
                    return
                busy = True
                while self.sent < self.count and valve.room() > 0:
                    self.sent += 1
                    observer.on_next(b"%0100d" % self.sent)
                busy = False
                if self.sent == self.count:
                    self.sent += 1
                    observer.on_completed()

            link = valve.listen(emit)
            emit()
            return Disposable(link.dispose)

        return reactivex.create(subscribe)


def resident() -> int:
    """Return the resident memory of this process in KiB."""
    gc.collect()
    return int(psutil.Process().memory_info().rss) // 1024


def trim(row: bytes) -> bytes:
    """Remove leading zeros."""
    return row.lstrip(b"0")


def is_full(row: bytes) -> bool:
    """Return whether the row has content."""
    return bool(row)


async def measure(record: FigureRecord, count: int) -> None:
    """Run the stream and record the memory it needed."""
    rows = WaitingSource(count)
    stored = most = early = 0
    start = resident()

    async def compress(items: list[bytes]) -> list[bytes]:
        await asyncio.sleep(0)
        return items

    async def store(lists: list[list[bytes]]) -> int:
        nonlocal stored, most, early
        most = max(most, rows.sent - stored)
        # This takes longer than upstream needs to fill its buffers.
        for _ in range(10):
            await asyncio.sleep(0)
        before, stored = stored, stored + sum(len(items) for items in lists)
        if before < count // 10 <= stored:
            early = resident()
        return stored

    began = time.perf_counter()
    stream: Observable[Any] = rows.stream().pipe(
        rx.map(trim),
        rx.filter(is_full),
        batch(100, 1.0),
        map_async(compress, max_concurrent=8),
        batch(5, 1.0),
        map_async(store, max_concurrent=2),
    )
    await run(stream)
    passed = time.perf_counter() - began
    record.note(items=count)
    record.control("every item was stored", stored == count)
    record.add("stored", stored / passed, "1/s")
    record.add("in flight at most", most, "items")
    record.add("more memory after a tenth of them", early - start, "KiB")
    record.add("more memory from then to the end", resident() - early, "KiB")


def bench_demand_memory(record: FigureRecord, size: int | None) -> None:
    """One long stream."""
    asyncio.run(measure(record, size or ITEMS))
