# pyright: basic, reportMissingImports=false
"""dramatiq: ``actor.send``, which takes one at a time, and a ``Worker`` of threads."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from benchmarks.peers.driver import Arrivals, Saw, main, thread_load


def _actor(url: str, saw: Saw) -> Any:
    logging.getLogger("dramatiq").setLevel(logging.CRITICAL)
    dramatiq.set_broker(RedisBroker(url=url))

    def nothing(payload: str) -> None:
        saw(payload)

    return dramatiq.actor(nothing, actor_name="nothing")


def submit(url: str, payloads: list[str]) -> float:
    """Send in a loop."""
    actor = _actor(url, lambda _: None)
    start = time.perf_counter()
    for payload in payloads:
        actor.send(payload)
    return time.perf_counter() - start


def work(url: str, concurrency: int, saw: Saw) -> None:
    """Run a worker with the default middleware, which polls every 10 ms while it is idle."""
    broker = _actor(url, saw).broker
    dramatiq.Worker(broker, worker_threads=concurrency, worker_timeout=10).start()
    threading.Event().wait()


def load(url: str, arrivals: Arrivals) -> None:
    """Send one at a time."""
    thread_load(arrivals, _actor(url, lambda _: None).send)


if __name__ == "__main__":
    main(("dramatiq",), submit=submit, work=work, load=load)
