# pyright: basic, reportMissingImports=false
"""saq: ``queue.enqueue``, which takes one at a time, and a ``Worker``; jobs are not kept."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from saq import Queue, Worker

from benchmarks.peers.driver import Arrivals, Saw, arrive, gather, main, run_load


async def _with_queue(url: str, use: Callable[[Callable[[str], Awaitable[Any]]], Any]) -> Any:
    queue = Queue.from_url(url)
    await queue.connect()
    try:
        return await use(lambda payload: queue.enqueue("nothing", payload=payload, ttl=-1))
    finally:
        await queue.disconnect()


def submit(url: str, payloads: list[str]) -> float:
    """Enqueue from concurrent coroutines."""
    took: float = asyncio.run(_with_queue(url, lambda enqueue: gather(enqueue, payloads)))
    return took


def work(url: str, concurrency: int, saw: Saw) -> None:
    """Run a worker without scheduled jobs."""

    async def nothing(_: Any, *, payload: str) -> None:
        saw(payload)

    async def run() -> None:
        queue = Queue.from_url(url)
        await queue.connect()
        await Worker(queue, [("nothing", nothing)], concurrency=concurrency).start()

    asyncio.run(run())


def load(url: str, arrivals: Arrivals) -> None:
    """Enqueue one at a time."""
    run_load(_with_queue(url, lambda enqueue: arrive(arrivals, enqueue)))


if __name__ == "__main__":
    main(("saq",), submit=submit, work=work, load=load)
