"""
A process that uses hubs in all ways and prints, as JSON, what they left open.

Run as ``python -X dev -W error -m tests.failures.session [url]``.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
import threading
from pathlib import Path
from typing import Any

import structlog

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.clock import LoopScheduler

Left = dict[str, Any]


def left() -> Left:
    """Return what this process has open."""
    gc.collect()
    for thread in threading.enumerate():
        if thread is not threading.main_thread():
            # Those that are told to end need a moment on a busy machine; one that stays is listed.
            thread.join(10.0)
    fds: list[str] = []
    for fd in list(Path("/proc/self/fd").iterdir()):
        try:
            fds.append(str(fd.readlink()))
        except FileNotFoundError:
            pass  # the descriptor of this listing
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    threads = sorted(thread.name for thread in threading.enumerate())
    return {"fds": sorted(fds), "children": children, "threads": threads}


def plain(task: rxd.Task[float]) -> None:
    """Do nothing, in a thread."""


async def use(url: str | None, how: str) -> None:
    """Connect, work, and leave in the way that *how* names."""
    running = asyncio.Event()

    async def handler(task: rxd.Task[float]) -> None:
        running.set()
        await asyncio.sleep(task.payload)

    async with rxd.connect(url, settings=rxd.Settings(grace=0.1)) as hub:
        board: rxd.Board[float] = hub.board(f"board-{how}")
        events: list[rxd.TaskEvent] = []
        board.events.subscribe(events.append)
        await board.submit([rxd.Task(0.0) for _ in range(20)])
        await rxd.run(board.claims(until="joined").pipe(ops.execute(handler), ops.settle(board)))
        await board.submit([rxd.Task(0.0) for _ in range(20)])
        await rxd.run(board.claims(until="idle").pipe(ops.execute(plain), ops.settle(board)))
        # Now tasks that are dropped, claimed by hand, or running for long.
        running.clear()
        await board.submit([rxd.Task(60.0) for _ in range(20)])
        await board.claim(2)
        board.claims(prefetch=8).pipe(ops.execute(handler), ops.settle(board)).subscribe(
            scheduler=LoopScheduler(asyncio.get_running_loop())
        )
        await running.wait()
        if how == "error":
            raise ValueError("on purpose")
        if how == "cancelled":
            task: Any = asyncio.current_task()
            task.cancel()
            await asyncio.sleep(0)


async def main(url: str | None) -> list[str]:
    """Use a hub in each way; return the asyncio tasks that were left."""
    found: list[str] = []
    # Debug mode reports slow steps, such as the import of a server; the test is not about these.
    asyncio.get_running_loop().slow_callback_duration = 30.0
    for how in ("normal", "error", "cancelled"):
        work = asyncio.create_task(use(url, how))
        await asyncio.wait({work})
        assert work.cancelled() == (how == "cancelled")
        if not work.cancelled():
            assert isinstance(work.exception(), ValueError) == (how == "error")
        found += [f"{how}: {t}" for t in asyncio.all_tasks() - {asyncio.current_task()}]
    return found


if __name__ == "__main__":
    structlog.configure(processors=[structlog.processors.KeyValueRenderer()])
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(40),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    before = left()
    tasks = asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else None), debug=True)
    sys.stdout.write(json.dumps({"before": before, "after": left(), "tasks": tasks}))
