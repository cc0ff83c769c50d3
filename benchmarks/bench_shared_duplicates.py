"""
How often a board in shared memory gives a task to two, in many claims by several processes.

Run ``python -m benchmarks.bench_shared_duplicates [claims] [processes]``; ten million by four
processes are the default. One process submits as long as there is room, the others claim 256 at a
time and settle. Each counts each task in a counter that all share; in the end all must be 1.
"""

from __future__ import annotations

import asyncio
import mmap
import multiprocessing
import os
import sys
import time
from typing import Any

from atomicshm import AtomicView

from rxdispatch import BoardFullError, SharedMemoryBoard, Task

CHUNK = 1000
ROOM = 100_000
TOLD = 5.0
CONTEXT = multiprocessing.get_context("fork")


async def take(board: SharedMemoryBoard[int], counts: AtomicView, total: int) -> None:
    """Claim, count and settle until all tasks are done; the last word counts them."""
    done = 8 * total
    while counts.load_u64(done) < total:
        claims = await board.claim(256)
        if not claims:
            await asyncio.sleep(0.001)
            continue
        for claim in claims:
            counts.fetch_add_u64(8 * claim.task.payload, 1)
        held = await board.settle([claim.done() for claim in claims])
        counts.fetch_add_u64(done, sum(held))


def work(name: str, memory: mmap.mmap, total: int) -> None:
    """Do what a worker process does."""
    with SharedMemoryBoard[int].attach(name) as board:
        asyncio.run(take(board, AtomicView(memory), total))


async def submit(board: SharedMemoryBoard[int], counts: AtomicView, total: int) -> None:
    """Submit all, and say how far it is."""
    begun = told = time.monotonic()
    for first in range(0, total, CHUNK):
        tasks = [Task(n, id=f"{n:x}") for n in range(first, min(first + CHUNK, total))]
        while True:
            try:
                await board.submit(tasks)
            except BoardFullError:
                await asyncio.sleep(0.005)
            else:
                break
        if time.monotonic() - told > TOLD:
            told = time.monotonic()
            done = counts.load_u64(8 * total)
            print(f"{done:14,} claims, {done / (told - begun):10,.0f}/s", flush=True)


def main() -> None:
    """Print the figures."""
    total = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    memory = mmap.mmap(-1, 8 * (total + 1))
    counts = AtomicView(memory)
    name = f"duplicates-{os.getpid()}"
    with SharedMemoryBoard[int].create(name, capacity=ROOM) as board:
        workers: list[Any] = [
            CONTEXT.Process(target=work, args=(name, memory, total)) for _ in range(processes)
        ]
        begun = time.monotonic()
        try:
            for worker in workers:
                worker.start()
            asyncio.run(submit(board, counts, total))
            for worker in workers:
                worker.join()
        finally:
            board.unlink()
            for worker in workers:
                worker.kill()
        seconds = time.monotonic() - begun
        left = asyncio.run(board.counts())
    claimed = memoryview(memory).cast("Q")[:total].tolist()
    twice, never = sum(n > 1 for n in claimed), claimed.count(0)
    print(f"{total:14,} claims, {total / seconds:10,.0f}/s by {processes} processes")
    print(f"{twice:14,} twice, {never:,} never; {left}")
    if twice or never:
        sys.exit(1)


if __name__ == "__main__":
    main()
