"""Forks processes that start at the same moment, and collects the items that each took."""

from __future__ import annotations

import asyncio
import multiprocessing
import time
from typing import Any, Final

from rxdispatch import SharedMemoryBoard

__all__ = ["CONTEXT", "PROCESSES", "claim_and_settle", "different", "measure"]

CONTEXT: Final = multiprocessing.get_context("fork")
PROCESSES: Final = 4


def measure(target: Any, source: Any, processes: int, before: Any = None) -> tuple[float, bytes]:
    """
    Return the seconds from the first take to the last, and what was taken.

    Each process calls *target* with *source*, its index, the event to wait for, and the queue into
    which it puts its index, begin, end and what it took. *before* is called once all may begin.
    """
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


def claim_and_settle(name: str, index: int, start: Any, out: Any) -> None:
    """Claim and settle by the public methods until the board is empty."""
    board = SharedMemoryBoard[Any].attach(name)

    async def work() -> tuple[float, float, bytes]:
        numbers = bytearray()
        start.wait()
        begun = time.monotonic()
        while claims := await board.claim(256):
            await board.settle([claim.done() for claim in claims])
            for claim in claims:
                numbers += int(claim.task.payload[20:]).to_bytes(4, "little")
        return begun, time.monotonic(), bytes(numbers)

    out.put((index, *asyncio.run(work())))
    board.close()


def different(taken: bytes) -> int:
    """Return how many different numbers there are; each takes four bytes."""
    return len({taken[i : i + 4] for i in range(0, len(taken), 4)})
