"""
rxdispatch: ``board.submit`` of many, and ``claims | execute | settle``.

A load calls ``await board.submit(task)`` for each task; with ``RXDISPATCH_STREAM`` set, it puts
tasks into an ``Ingress``, from which the operator ``submit`` writes what came within 2 ms.
"""

from __future__ import annotations

import asyncio
import os
import time

import rxdispatch as rxd
from benchmarks.peers.driver import Arrivals, Saw, arrive, main, run_load
from rxdispatch import operators as ops


def submit(url: str, payloads: list[str]) -> float:
    """Give all tasks to one call."""

    async def run() -> float:
        async with rxd.connect(url) as hub:
            board = hub.board("peers")
            start = time.perf_counter()
            await board.submit(rxd.Task(payload) for payload in payloads)
            return time.perf_counter() - start

    return asyncio.run(run())


def work(url: str, concurrency: int, saw: Saw) -> None:
    """Run the pipeline of the README."""

    async def handle(task: rxd.Task[str]) -> None:
        saw(task.payload)

    async def run() -> None:
        async with rxd.connect(url) as hub:
            board = hub.board("peers")
            await rxd.run(
                board.claims().pipe(
                    ops.execute(handle, max_concurrent=concurrency), ops.settle(board)
                )
            )

    asyncio.run(run())


def load(url: str, arrivals: Arrivals) -> None:
    """Submit tasks one at a time, or as a stream."""

    async def run() -> None:
        async with rxd.connect(url) as hub:
            board = hub.board("peers")
            if not os.environ.get("RXDISPATCH_STREAM"):
                await arrive(arrivals, lambda payload: board.submit(rxd.Task(payload)))
                return
            ingress = rxd.Ingress[rxd.Task[str]](1024)
            written = asyncio.create_task(rxd.run(ingress.pipe(ops.submit(board))))
            await arrive(arrivals, lambda payload: ingress.put(rxd.Task(payload)))
            ingress.close()
            await written

    run_load(run())


if __name__ == "__main__":
    main(("rxdispatch",), submit=submit, work=work, load=load)
