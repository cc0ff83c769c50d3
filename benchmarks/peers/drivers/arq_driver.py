# pyright: basic, reportMissingImports=false
"""arq: ``enqueue_job``, which takes one at a time, and a ``Worker`` that polls every 10 ms."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from arq import Worker, create_pool, func
from arq.connections import RedisSettings

from benchmarks.peers.driver import Arrivals, Saw, arrive, gather, main, run_load


async def _with_queue(url: str, use: Callable[[Callable[[str], Awaitable[Any]]], Any]) -> Any:
    pool = await create_pool(RedisSettings.from_dsn(url))
    try:
        return await use(lambda payload: pool.enqueue_job("nothing", payload))
    finally:
        await pool.aclose()


def submit(url: str, payloads: list[str]) -> float:
    """Enqueue from concurrent coroutines."""
    took: float = asyncio.run(_with_queue(url, lambda enqueue: gather(enqueue, payloads)))
    return took


def work(url: str, concurrency: int, saw: Saw) -> None:
    """Run a worker that keeps no results and logs none."""

    async def nothing(_: Any, payload: str) -> None:
        saw(payload)

    asyncio.set_event_loop(asyncio.new_event_loop())
    Worker(
        [func(nothing, name="nothing")],
        redis_settings=RedisSettings.from_dsn(url),
        max_jobs=concurrency,
        poll_delay=0.01,
        keep_result=0,
        log_results=False,
        handle_signals=False,
    ).run()


def load(url: str, arrivals: Arrivals) -> None:
    """Enqueue one at a time."""
    run_load(_with_queue(url, lambda enqueue: arrive(arrivals, enqueue)))


if __name__ == "__main__":
    main(("arq",), submit=submit, work=work, load=load)
