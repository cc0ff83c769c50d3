"""
The table of the document that started the project: marks against a queue and a lock.

Four processes share a list of tasks and do each of them once, or so they hope. Printed for each
way: seconds, tasks a second, the CPU seconds of all processes, the peak of their memory, and
which share of the tasks was done twice.

- ``queue n``: ``multiprocessing.Queue`` of payloads, *n* at a time.
- ``lock``: a shared array of marks, read and written under ``multiprocessing.Lock``.
- ``confirm n``: the document's way: read the mark, write one's own, then read it again *n* times
  (``status_retry_count``) and go on if it is still one's own.
- ``swap``: the mark changes by compare-and-swap, as on ``SharedMemoryBoard``.

Payloads are decoded everywhere. A barrier lets all begin together, at the same task, so that they
get in each other's way as much as they can.
"""

from __future__ import annotations

import mmap
import multiprocessing
import os
import resource
import sys
import time
from collections.abc import Callable
from multiprocessing.context import ForkContext
from typing import Any

import msgspec
from atomicshm import AtomicView

WORKERS = 4
ROUNDS = 3
WAYS = ("queue 1", "queue 64", "lock", "confirm 0", "confirm 1", "confirm 3", "swap")
_decode = msgspec.msgpack.Decoder().decode
_encode = msgspec.msgpack.Encoder().encode


class Marks:
    """A mark and a counter for each task, in memory that forked processes share."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.memory = mmap.mmap(-1, 16 * count)
        self.view = AtomicView(self.memory)
        self.payload = _encode({"path": "a" * 20})

    def did(self, task: int) -> None:
        """Do the task."""
        _decode(self.payload)
        self.view.fetch_add_u64(16 * task + 8, 1)

    def repeated(self) -> int:
        """Return how many were done more than once; raises if one was never done."""
        runs = [self.view.load_u64(16 * task + 8) for task in range(self.count)]
        if 0 in runs:
            raise RuntimeError(f"task {runs.index(0)} was never done")
        return sum(n > 1 for n in runs)


def by_swap(marks: Marks, me: int) -> None:
    """Take what nobody has."""
    swap, did = marks.view.cas_u64, marks.did
    for task in range(marks.count):
        if swap(16 * task, 0, me) == 0:
            did(task)


def by_confirmation(times: int) -> Callable[[Marks, int], None]:
    """Return the document's way with so many confirmations."""

    def work(marks: Marks, me: int) -> None:
        load, store, did = marks.view.load_u64, marks.view.store_u64, marks.did
        for task in range(marks.count):
            if load(16 * task) == 0:
                store(16 * task, me)
                for _ in range(times):
                    if load(16 * task) != me:
                        break
                else:
                    did(task)

    return work


def by_lock(lock: Any) -> Callable[[Marks, int], None]:
    """Return the way with an explicit lock."""

    def work(marks: Marks, me: int) -> None:
        load, store, did = marks.view.load_u64, marks.view.store_u64, marks.did
        for task in range(marks.count):
            with lock:
                mine = load(16 * task) == 0
                if mine:
                    store(16 * task, me)
            if mine:
                did(task)

    return work


def by_queue(queue: Any) -> Callable[[Marks, int], None]:
    """Return the way with a queue of lists of tasks."""

    def work(marks: Marks, _: int) -> None:
        add = marks.view.fetch_add_u64
        while (chunk := queue.get()) is not None:
            for task, payload in chunk:
                _decode(payload)
                add(16 * task + 8, 1)

    return work


def measure(context: ForkContext, way: str, count: int) -> tuple[float, float, int, int]:
    """Return seconds, CPU seconds, the peak of memory in KiB and how many were done twice."""
    marks = Marks(count)
    chunk = int(way.split()[1]) if way.startswith("queue") else 0
    queue: Any = context.Queue() if chunk else None
    works: dict[str, Callable[[Marks, int], None]] = {
        way: by_queue(queue),
        "lock": by_lock(context.Lock()),
        "swap": by_swap,
        **{f"confirm {n}": by_confirmation(n) for n in (0, 1, 3)},
    }
    barrier = context.Barrier(WORKERS + 1)
    sent, received = context.SimpleQueue(), works[way]

    def run(me: int) -> None:
        barrier.wait()
        received(marks, me)
        used = resource.getrusage(resource.RUSAGE_SELF)
        sent.put((used.ru_utime + used.ru_stime, used.ru_maxrss))

    processes = [context.Process(target=run, args=(me,)) for me in range(1, WORKERS + 1)]
    for process in processes:
        process.start()
    barrier.wait()
    started = time.perf_counter()
    if queue is not None:
        for at in range(0, count, chunk):
            queue.put([(task, marks.payload) for task in range(at, min(count, at + chunk))])
        for _ in processes:
            queue.put(None)
    used = [sent.get() for _ in processes]
    passed = time.perf_counter() - started
    for process in processes:
        process.join()
    return passed, sum(cpu for cpu, _ in used), max(peak for _, peak in used), marks.repeated()


def main() -> None:
    """Measure every way, and print the best of some rounds with all duplicates."""
    context = multiprocessing.get_context("fork")
    counts = [int(text) for text in sys.argv[1:]] or [1_000, 100_000]
    for count in counts:
        print(f"{count:,} tasks, {WORKERS} processes on {os.cpu_count()} cores")
        print(f"{'':<12}{'s':>9}{'tasks/s':>12}{'CPU s':>9}{'peak MiB':>10}{'done twice':>13}")
        for way in WAYS:
            rounds = [measure(context, way, count) for _ in range(ROUNDS)]
            passed, cpu, peak, _ = min(rounds)
            twice = sum(found for *_, found in rounds) / (count * ROUNDS)
            print(
                f"{way:<12}{passed:9.3f}{count / passed:12,.0f}{cpu:9.2f}{peak / 1024:10.0f}"
                f"{twice:13.4%}"
            )
        print()


if __name__ == "__main__":
    main()
