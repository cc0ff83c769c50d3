"""
A process with many workers of one board, each with a hub and an inbox of its own.

Run as ``python -m tests.failures.host URL BOARD COUNT PATH``; it appends the id of each task that
it starts to the file PATH.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failures.handlers import note


async def work(url: str, board: str, path: str) -> None:
    """Run one worker."""

    async def handler(task: rxd.Task[Any]) -> None:
        note(path, task.id)
        await asyncio.sleep(0)

    async with rxd.connect(url) as hub:
        there: rxd.Board[Any] = hub.board(board)
        await rxd.run(
            there.claims(prefetch=4, lease=30.0, worker="host").pipe(
                ops.execute(handler, max_concurrent=4), ops.settle(there)
            )
        )


async def main() -> None:
    """Run all workers."""
    url, board, count, path = sys.argv[1:]
    async with asyncio.TaskGroup() as group:
        for _ in range(int(count)):
            group.create_task(work(url, board, path))


if __name__ == "__main__":
    asyncio.run(main())
