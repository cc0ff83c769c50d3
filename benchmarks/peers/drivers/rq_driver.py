# pyright: basic, reportMissingImports=false
"""rq: ``queue.enqueue_many``, and a ``SimpleWorker``, which runs one job at a time unforked."""

from __future__ import annotations

import logging
import time
from typing import Any

from redis import Redis
from rq import Queue, SimpleWorker

from benchmarks.peers.driver import Arrivals, Saw, main, thread_load
from benchmarks.peers.drivers.rq_task import listeners

NOTHING = "benchmarks.peers.drivers.rq_task.nothing"


def _queue(url: str) -> Any:
    logging.getLogger("rq").setLevel(logging.CRITICAL)
    return Queue("peers", connection=Redis.from_url(url))


def submit(url: str, payloads: list[str]) -> float:
    """Enqueue a thousand at a time."""
    queue = _queue(url)
    start = time.perf_counter()
    for first in range(0, len(payloads), 1000):
        some = payloads[first : first + 1000]
        queue.enqueue_many(
            [Queue.prepare_data(NOTHING, (payload,), result_ttl=0) for payload in some]
        )
    return time.perf_counter() - start


def work(url: str, _: int, saw: Saw) -> None:
    """Run jobs in this process."""
    listeners.append(saw)
    queue = _queue(url)
    SimpleWorker([queue], connection=queue.connection, log_job_description=False).work(
        logging_level="CRITICAL"
    )


def load(url: str, arrivals: Arrivals) -> None:
    """Enqueue one at a time."""
    queue = _queue(url)
    thread_load(arrivals, lambda payload: queue.enqueue(NOTHING, payload, result_ttl=0))


if __name__ == "__main__":
    main(("rq",), submit=submit, work=work, load=load)
