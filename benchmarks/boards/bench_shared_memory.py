"""
How fast is a board in shared memory beside ``multiprocessing.Queue`` and ``Lock``?

Tasks a second of four processes together, from the first claim to the last. ``--size`` sets the
number of tasks.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import Any

import msgspec

from benchmarks.figures.record import FigureRecord
from benchmarks.support.forked import CONTEXT, PROCESSES, claim_and_settle, different, measure
from rxdispatch import SharedMemoryBoard, Task
from rxdispatch.boards.shm.storage import layout

PACKAGES = ("atomicshm",)
PAYLOAD = "twenty bytes of text"
TASKS = 100_000
QUEUE = "multiprocessing.Queue, decoding the same payload"
MARKS = "marks alone"
LOCK = "multiprocessing.Lock around a counter"
CLAIMING = "tasks a second"


def queue(source: Any, index: int, start: Any, out: Any) -> None:
    """Take encoded payloads from a queue and decode them."""
    decode = msgspec.msgpack.Decoder().decode
    start.wait()
    begun, seen = time.monotonic(), bytearray()
    while (item := source.get()) is not None:
        seen += int(decode(item)[0][20:]).to_bytes(4, "little")
    out.put((index, begun, time.monotonic(), bytes(seen)))


def marks(name: str, index: int, start: Any, out: Any) -> None:
    """Claim marks alone: take a run of 256 marks by one addition, then swap each mark."""
    board = SharedMemoryBoard[Any].attach(name)
    mapping = board._shared.mapping
    cas, base = mapping.cas, mapping.geometry.marks
    start.wait()
    begun, won, count = time.monotonic(), 0, mapping.geometry.capacity
    while (first := mapping.add(layout.RING_HEAD, 256)) < count:
        for at in range(base + first * 8, base + min(first + 256, count) * 8, 8):
            if cas(at, 0, 1) == 0:
                won += 1
    out.put((index, begun, time.monotonic(), won.to_bytes(4, "little")))
    board.close()


def lock(shared: Any, index: int, start: Any, out: Any) -> None:
    """Take the same number of items under a lock."""
    mutex, left = shared
    start.wait()
    begun, won = time.monotonic(), 0
    while True:
        with mutex:
            if left.value == 0:
                break
            left.value -= 1
        won += 1
    out.put((index, begun, time.monotonic(), won.to_bytes(4, "little")))


def added(counts: bytes) -> int:
    """Return the sum of counts of four bytes each."""
    return sum(int.from_bytes(counts[i : i + 4], "little") for i in range(0, len(counts), 4))


def engine_claim(board: SharedMemoryBoard[Any], count: int) -> float:
    """Return the seconds that the engine takes to claim one task."""

    async def single() -> float:
        await board.submit(Task(n) for n in range(count))
        engine: Any = board._shared
        begun = time.perf_counter()
        for _ in range(count):
            await engine.claim(1, None, "w", 30.0)
        return (time.perf_counter() - begun) / count

    return asyncio.run(single())


def queued(record: FigureRecord, tasks: int) -> None:
    """Measure the queue of the standard library."""
    source = CONTEXT.Queue()
    encode = msgspec.msgpack.Encoder().encode

    def fill() -> None:
        for n in range(tasks):
            source.put(encode((f"{PAYLOAD}{n:08d}", n)))
        for _ in range(PROCESSES):
            source.put(None)

    seconds, taken = measure(queue, source, PROCESSES, fill)
    once = len(taken) // 4 == different(taken) == tasks
    record.control("every item of the queue was taken once", once)
    record.add(QUEUE, tasks / seconds, "1/s", group=CLAIMING)


def claimed(record: FigureRecord, name: str, tasks: int) -> None:
    """Measure the public methods, one claim in the engine, and the size of the file."""
    with SharedMemoryBoard[Any].create(name, capacity=tasks) as board:
        try:
            begun = time.monotonic()
            asyncio.run(board.submit(Task(f"{PAYLOAD}{n:08d}") for n in range(tasks)))
            submitting = time.monotonic() - begun
            seconds, taken = measure(claim_and_settle, name, PROCESSES)
            once = len(taken) // 4 == different(taken) == tasks
            record.control("every task was claimed once", once)
            rate = tasks / seconds
            record.add("claim and settle", rate, "1/s", group=CLAIMING, base=QUEUE, at_least=4)
            record.add("submit, one process", tasks / submitting, "1/s", group=CLAIMING)
            single = engine_claim(board, min(tasks, 5_000)) * 1e6
            record.add("claim of one, in the engine", single, "us", group="one claim", at_most=5)
            size = board._shared.mapping.geometry.size / tasks
            record.add("of the file, a task", size, "B", group="bytes", at_most=350)
        finally:
            board.unlink()


def marked(record: FigureRecord, name: str, tasks: int) -> None:
    """Measure marks alone, beside the queue and beside a lock."""
    with SharedMemoryBoard[Any].create(name, capacity=tasks) as board:
        try:
            seconds, won = measure(marks, name, PROCESSES)
        finally:
            board.unlink()
    record.control("every mark was changed once", added(won) == tasks)
    rate = tasks / seconds
    record.add(MARKS, rate, "1/s", group=CLAIMING, base=QUEUE, at_least=10)
    seconds, won = measure(lock, (CONTEXT.Lock(), CONTEXT.RawValue("q", tasks)), PROCESSES)
    record.control("every item was taken once under the lock", added(won) == tasks)
    record.add(LOCK, tasks / seconds, "1/s", group="beside a lock")
    record.add(MARKS, rate, "1/s", group="beside a lock", base=LOCK, at_least=4)


def bench_shared_memory(record: FigureRecord, size: int | None) -> None:
    """The queue, the board and bare marks in turn."""
    tasks, name = size or TASKS, f"bench-{os.getpid()}"
    record.note(tasks=tasks, processes=PROCESSES)
    queued(record, tasks)
    claimed(record, name, tasks)
    marked(record, name, tasks)
