# pyright: basic, reportMissingImports=false
"""streaq: ``worker.enqueue_many``, which pipelines, and a ``Worker`` that keeps no results."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from streaq import Worker

from benchmarks.peers.driver import Arrivals, Saw, arrive, main, run_load


def _worker(url: str, saw: Saw, concurrency: int = 32) -> Any:
    worker: Any = Worker(url, concurrency=concurrency, handle_signals=False)

    async def nothing(payload: str) -> None:
        saw(payload)

    return worker, worker.task(nothing, name="nothing", silent=True, ttl=0)


def submit(url: str, payloads: list[str]) -> float:
    """Enqueue a thousand at a time."""

    async def run() -> float:
        worker, task = _worker(url, lambda _: None)
        async with worker:
            start = time.perf_counter()
            for first in range(0, len(payloads), 1000):
                some = payloads[first : first + 1000]
                await worker.enqueue_many([task.enqueue(payload) for payload in some])
            return time.perf_counter() - start

    return asyncio.run(run())


def work(url: str, concurrency: int, saw: Saw) -> None:
    """Run the worker on an asyncio loop."""
    worker, _ = _worker(url, saw, concurrency)
    asyncio.run(worker.run_async())


def load(url: str, arrivals: Arrivals) -> None:
    """Enqueue one at a time."""

    async def run() -> None:
        worker, task = _worker(url, lambda _: None)
        async with worker:
            await arrive(arrivals, task.enqueue)

    run_load(run())


if __name__ == "__main__":
    main(("streaq", "coredis"), submit=submit, work=work, load=load)
