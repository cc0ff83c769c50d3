# pyright: basic, reportMissingImports=false
"""taskiq-redis: ``task.kiq``, which takes one at a time; ``TASKIQ_BROKER`` is list or stream."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import Any

from taskiq.api import run_receiver_task
from taskiq_redis import ListQueueBroker, RedisStreamBroker

from benchmarks.peers.driver import Arrivals, Saw, arrive, gather, main, run_load


def _broker(url: str) -> Any:
    if os.environ.get("TASKIQ_BROKER") == "stream":
        return RedisStreamBroker(url, consumer_id="0")
    return ListQueueBroker(url)


def _task(broker: Any, saw: Saw) -> Any:
    async def nothing(payload: str) -> None:
        saw(payload)

    return broker.task(task_name="nothing")(nothing)


async def _with_queue(url: str, use: Callable[[Callable[[str], Awaitable[Any]]], Any]) -> Any:
    broker = _broker(url)
    await broker.startup()
    try:
        return await use(_task(broker, lambda _: None).kiq)
    finally:
        await broker.shutdown()


def submit(url: str, payloads: list[str]) -> float:
    """Kick from concurrent coroutines."""
    took: float = asyncio.run(_with_queue(url, lambda kick: gather(kick, payloads)))
    return took


def work(url: str, concurrency: int, saw: Saw) -> None:
    """Receive without checking parameters; prefetch as many tasks as run at a time."""

    async def run() -> None:
        broker = _broker(url)
        _task(broker, saw)
        await run_receiver_task(
            broker,
            max_async_tasks=concurrency,
            max_prefetch=concurrency,
            validate_params=False,
            run_startup=True,
        )

    asyncio.run(run())


def load(url: str, arrivals: Arrivals) -> None:
    """Kick one at a time."""
    run_load(_with_queue(url, lambda kick: arrive(arrivals, kick)))


if __name__ == "__main__":
    main(("taskiq", "taskiq-redis"), submit=submit, work=work, load=load)
