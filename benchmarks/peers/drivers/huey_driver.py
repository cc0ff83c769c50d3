# pyright: basic, reportMissingImports=false
"""huey: calling a task, which enqueues it, and a consumer of threads that keeps no results."""

from __future__ import annotations

import logging
import time
from typing import Any

from huey import RedisHuey

from benchmarks.peers.driver import Arrivals, Saw, main, thread_load


def _task(url: str, saw: Saw) -> Any:
    logging.getLogger("huey").setLevel(logging.CRITICAL)
    huey: Any = RedisHuey("peers", url=url, results=False)

    def nothing(payload: str) -> None:
        saw(payload)

    return huey, huey.task(name="nothing")(nothing)


def submit(url: str, payloads: list[str]) -> float:
    """Call in a loop."""
    _, task = _task(url, lambda _: None)
    start = time.perf_counter()
    for payload in payloads:
        task(payload)
    return time.perf_counter() - start


def work(url: str, concurrency: int, saw: Saw) -> None:
    """Run a consumer that waits with BRPOP, without periodic tasks."""
    huey, _ = _task(url, saw)
    huey.create_consumer(
        workers=concurrency, worker_type="thread", periodic=False, initial_delay=0.01
    ).run()


def load(url: str, arrivals: Arrivals) -> None:
    """Call one at a time."""
    thread_load(arrivals, _task(url, lambda _: None)[1])


if __name__ == "__main__":
    main(("huey",), submit=submit, work=work, load=load)
