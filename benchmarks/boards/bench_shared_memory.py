"""
How fast is a board in shared memory beside ``multiprocessing.Queue`` and ``Lock``?

Run ``python -m benchmarks.boards.bench_shared_memory [tasks] [processes]``. Keeps tasks a second of
all processes together, from the first claim to the last, and sees that none was claimed twice.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import sys
import time
from typing import Any

import msgspec

from benchmarks.figures.record import Record
from rxdispatch import SharedMemoryBoard, Task
from rxdispatch.boards.shm.storage import layout

PAYLOAD = "twenty bytes of text"
TASKS = 100_000
PROCESSES = 4
QUEUE = "multiprocessing.Queue, decoding the same payload"
MARKS = "marks alone"
LOCK = "multiprocessing.Lock around a counter"
CLAIMING = "tasks a second"
CONTEXT = multiprocessing.get_context("fork")


def public(name: str, index: int, start: Any, out: Any) -> None:
    """Claim and settle by the public methods until nothing is left."""
    board = SharedMemoryBoard[Any].attach(name)

    async def work() -> tuple[float, float, bytes]:
        tokens = bytearray()
        start.wait()
        begun = time.monotonic()
        while claims := await board.claim(256):
            await board.settle([claim.done() for claim in claims])
            for claim in claims:
                tokens += int(claim.task.payload[20:]).to_bytes(4, "little")
        return begun, time.monotonic(), bytes(tokens)

    out.put((index, *asyncio.run(work())))
    board.close()


def queue(source: Any, index: int, start: Any, out: Any) -> None:
    """Take encoded payloads from a queue and decode them."""
    decode = msgspec.msgpack.Decoder().decode
    start.wait()
    begun, seen = time.monotonic(), bytearray()
    while (item := source.get()) is not None:
        seen += int(decode(item)[0][20:]).to_bytes(4, "little")
    out.put((index, begun, time.monotonic(), bytes(seen)))


def marks(name: str, index: int, start: Any, out: Any) -> None:
    """Change marks alone: take a run of 256 by one addition, then each of its marks."""
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


def measure(target: Any, source: Any, processes: int, before: Any = None) -> tuple[float, bytes]:
    """Return the seconds it took, and what was taken."""
    start, out = CONTEXT.Event(), CONTEXT.Queue()
    workers = [
        CONTEXT.Process(target=target, args=(source, i, start, out)) for i in range(processes)
    ]
    try:
        for worker in workers:
            worker.start()
        time.sleep(0.3)
        start.set()
        if before is not None:
            before()
        results = [out.get() for _ in workers]
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
    seconds = max(r[2] for r in results) - min(r[1] for r in results)
    return seconds, b"".join(r[3] for r in results)


def different(taken: bytes) -> int:
    """Return how many different numbers there are among those of four bytes each."""
    return len({taken[i : i + 4] for i in range(0, len(taken), 4)})


def added(counts: bytes) -> int:
    """Return the sum of counts of four bytes each."""
    return sum(int.from_bytes(counts[i : i + 4], "little") for i in range(0, len(counts), 4))


def engine_claim(board: SharedMemoryBoard[Any], count: int = 5_000) -> float:
    """Return the seconds of a claim of one task, in the engine."""

    async def single() -> float:
        await board.submit(Task(n) for n in range(count))
        engine: Any = board._shared
        begun = time.perf_counter()
        for _ in range(count):
            await engine.claim(1, None, "w", 30.0)
        return (time.perf_counter() - begun) / count

    return asyncio.run(single())


def queued(record: Record, tasks: int, processes: int) -> None:
    """Measure the queue of the standard library."""
    source = CONTEXT.Queue()
    encode = msgspec.msgpack.Encoder().encode

    def fill() -> None:
        for n in range(tasks):
            source.put(encode((f"{PAYLOAD}{n:08d}", n)))
        for _ in range(processes):
            source.put(None)

    seconds, taken = measure(queue, source, processes, fill)
    once = len(taken) // 4 == different(taken) == tasks
    record.control("every item of the queue was taken once", once)
    record.add(QUEUE, tasks / seconds, "1/s", group=CLAIMING)


def claimed(record: Record, name: str, tasks: int, processes: int) -> None:
    """Measure what a user calls, and what the board takes besides."""
    with SharedMemoryBoard[Any].create(name, capacity=tasks) as board:
        try:
            begun = time.monotonic()
            asyncio.run(board.submit(Task(f"{PAYLOAD}{n:08d}") for n in range(tasks)))
            submitting = time.monotonic() - begun
            seconds, taken = measure(public, name, processes)
            once = len(taken) // 4 == different(taken) == tasks
            record.control("every task was claimed once", once)
            rate = tasks / seconds
            record.add("claim and settle", rate, "1/s", group=CLAIMING, base=QUEUE, at_least=4)
            record.add("submit, one process", tasks / submitting, "1/s", group=CLAIMING)
            single = engine_claim(board) * 1e6
            record.add("claim of one, in the engine", single, "us", group="one claim", at_most=5)
            size = board._shared.mapping.geometry.size / tasks
            record.add("of the file, a task", size, "B", group="bytes", at_most=350)
        finally:
            board.unlink()


def marked(record: Record, name: str, tasks: int, processes: int) -> None:
    """Measure marks alone, beside the queue and beside a lock."""
    with SharedMemoryBoard[Any].create(name, capacity=tasks) as board:
        try:
            seconds, won = measure(marks, name, processes)
        finally:
            board.unlink()
    record.control("every mark was changed once", added(won) == tasks)
    rate = tasks / seconds
    record.add(MARKS, rate, "1/s", group=CLAIMING, base=QUEUE, at_least=10)
    seconds, won = measure(lock, (CONTEXT.Lock(), CONTEXT.RawValue("q", tasks)), processes)
    record.control("every item was taken once under the lock", added(won) == tasks)
    record.add(LOCK, tasks / seconds, "1/s", group="beside a lock")
    record.add(MARKS, rate, "1/s", group="beside a lock", base=LOCK, at_least=4)


def main() -> None:
    """Keep the figures."""
    tasks = int(sys.argv[1]) if len(sys.argv) > 1 else TASKS
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else PROCESSES
    name = f"bench-{os.getpid()}"
    with Record("bench_shared_memory", __doc__, packages=("atomicshm",)) as record:
        record.note(tasks=tasks, processes=processes)
        queued(record, tasks, processes)
        claimed(record, name, tasks, processes)
        marked(record, name, tasks, processes)


if __name__ == "__main__":
    main()
