"""
Count how often a task on a board in shared memory is claimed twice, or never.

Run ``python -m benchmarks.bench_shared_duplicates [claims] [processes]``. Rounds of at most 100,000
tasks are submitted, claimed and settled by several processes until so many claims are done.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Any

from benchmarks.bench_shared_memory import measure, public
from rxdispatch import SharedMemoryBoard, Task

ROUND = 100_000


def main() -> None:
    """Print progress; fail at the first task that was not claimed exactly once."""
    wanted = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    processes = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    name, done, seconds = f"duplicates-{os.getpid()}", 0, 0.0
    begun = time.monotonic()
    with SharedMemoryBoard[Any].create(name, capacity=ROUND) as board:
        try:
            while done < wanted:
                size = min(ROUND, wanted - done)
                asyncio.run(board.submit(Task(f"{'':20}{n:08d}") for n in range(size)))
                took, taken = measure(public, name, processes)
                numbers = {taken[i : i + 4] for i in range(0, len(taken), 4)}
                twice, missing = len(taken) // 4 - len(numbers), size - len(numbers)
                done, seconds = done + size, seconds + took
                print(
                    f"{done:12,} claims, {twice} twice, {missing} missing,"
                    f" {done / seconds:,.0f}/s, {time.monotonic() - begun:,.0f} s in all",
                    flush=True,
                )
                if twice or missing:
                    sys.exit(1)
        finally:
            board.unlink()


if __name__ == "__main__":
    main()
