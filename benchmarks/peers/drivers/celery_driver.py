# pyright: basic, reportMissingImports=false
"""celery: ``apply_async``, which takes one at a time, and a worker with a pool of threads."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery

from benchmarks.peers.driver import Arrivals, Saw, main, thread_load


def _task(url: str, saw: Saw) -> Any:
    app: Any = Celery("peers", broker=url, set_as_current=True)
    app.conf.update(
        task_ignore_result=True,
        worker_send_task_events=False,
        worker_hijack_root_logger=False,
        broker_connection_retry_on_startup=True,
        worker_enable_remote_control=False,
    )

    def nothing(payload: str) -> None:
        saw(payload)

    return app, app.task(nothing, name="nothing")


def submit(url: str, payloads: list[str]) -> float:
    """Send in a loop through one producer."""
    app, task = _task(url, lambda _: None)
    with app.producer_or_acquire() as producer:
        start = time.perf_counter()
        for payload in payloads:
            task.apply_async((payload,), producer=producer)
        return time.perf_counter() - start


def work(url: str, concurrency: int, saw: Saw) -> None:
    """Run a worker that neither gossips nor mingles."""
    app, _ = _task(url, saw)
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--loglevel=CRITICAL",
            "--pool=threads",
            f"--concurrency={concurrency}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
        ]
    )


def load(url: str, arrivals: Arrivals) -> None:
    """Send one at a time, with producers from celery's pool."""
    _, task = _task(url, lambda _: None)
    thread_load(arrivals, lambda payload: task.apply_async((payload,)))


if __name__ == "__main__":
    main(("celery", "kombu"), submit=submit, work=work, load=load)
