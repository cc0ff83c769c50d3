"""
How often is a task on a board in shared memory claimed twice, or never?

Several processes claim and settle rounds of at most 100,000 tasks until ``--size`` claims are done:
100,000 by default, in some 20 seconds, or 10,000,000 in some 13 minutes.
"""

from __future__ import annotations

import asyncio
import os
from typing import Any

from benchmarks.figures.record import FigureRecord
from benchmarks.support.forked import PROCESSES, claim_and_settle, different, measure
from rxdispatch import SharedMemoryBoard, Task

PACKAGES = ("atomicshm",)
CLAIMS = 100_000
ROUND = 100_000


def bench_shared_duplicates(record: FigureRecord, size: int | None) -> None:
    """Claim until enough claims are done, or until a task was not claimed exactly once."""
    wanted = size or CLAIMS
    record.note(claims=wanted, processes=PROCESSES)
    name, done, seconds = f"duplicates-{os.getpid()}", 0, 0.0
    twice = missing = 0
    with SharedMemoryBoard[Any].create(name, capacity=ROUND) as board:
        try:
            while done < wanted and not (twice or missing):
                tasks = min(ROUND, wanted - done)
                asyncio.run(board.submit(Task(f"{'':20}{n:08d}") for n in range(tasks)))
                took, taken = measure(claim_and_settle, name, PROCESSES)
                numbers = different(taken)
                twice, missing = len(taken) // 4 - numbers, tasks - numbers
                done, seconds = done + tasks, seconds + took
        finally:
            board.unlink()
    record.add("claimed and settled", done, "tasks")
    record.add("claimed twice", twice, "tasks", at_most=0)
    record.add("never claimed", missing, "tasks", at_most=0)
    record.add("claims and settlements", done / seconds, "1/s")
    record.control("none was claimed twice and none was missing", not twice and not missing)
