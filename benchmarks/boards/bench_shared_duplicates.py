"""
How often is a task on a board in shared memory claimed twice, or never?

Run ``python -m benchmarks.boards.bench_shared_duplicates [claims] [processes]``. Rounds of at most
100,000 tasks are submitted, claimed and settled by several processes until so many claims are
done: 100,000 in some 20 seconds, or 10,000,000 in some 13 minutes.
"""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from benchmarks.boards.bench_shared_memory import PROCESSES, different, measure, public
from benchmarks.figures.record import Record
from rxdispatch import SharedMemoryBoard, Task

CLAIMS = 100_000
ROUND = 100_000


def main() -> None:
    """Show progress; fail at the first task that was not claimed exactly once."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else CLAIMS
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else PROCESSES
    with Record("bench_shared_duplicates", __doc__, packages=("atomicshm",)) as record:
        record.note(claims=wanted, processes=processes)
        count(record, wanted, processes)


def count(record: Record, wanted: int, processes: int) -> None:
    """Claim so often, and keep how often it went wrong."""
    name, done, seconds = f"duplicates-{os.getpid()}", 0, 0.0
    twice = missing = 0
    with SharedMemoryBoard[Any].create(name, capacity=ROUND) as board:
        try:
            while done < wanted:
                size = min(ROUND, wanted - done)
                asyncio.run(board.submit(Task(f"{'':20}{n:08d}") for n in range(size)))
                took, taken = measure(public, name, processes)
                numbers = different(taken)
                twice, missing = len(taken) // 4 - numbers, size - numbers
                done, seconds = done + size, seconds + took
                if twice or missing:
                    break
                if done % 1_000_000 == 0:
                    print(f"{done:12,} claims", flush=True)
        finally:
            board.unlink()
    record.add("claimed and settled", done, "tasks")
    record.add("claimed twice", twice, "tasks", at_most=0)
    record.add("never claimed", missing, "tasks", at_most=0)
    record.add("claims and settlements", done / seconds, "1/s")
    record.control("none was claimed twice and none was missing", not twice and not missing)


if __name__ == "__main__":
    main()
