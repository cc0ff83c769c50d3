# pyright: basic
# pytest-benchmark has no types.
"""
How many tasks a second do 1 to 16 processes drain together, from one board?

Each process runs ``claims | execute | settle``, 32 handlers at a time, with a prefetch of 256. All
processes are connected and waiting before the first may begin; a run lasts from then until the last
task is settled. Boards are filled before. The baseline is a ``multiprocessing.Queue`` with the same
number of consumers: its own thread feeds it during the run, as its pipe holds few items, and for
handlers that sleep a consumer gets 32 items and runs them together. *least* and *most* are the
smallest and largest share of the tasks that a process had, times the number of processes; *server*
and *workers* are the number of cores that they keep busy. More processes than cores only share the
cores.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import statistics
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import attrs
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.support.worker_pool import WIDTH, DrainJob, DrainShift, WorkerPool, numbers_of

WORKERS = (1, 2, 4, 8, 16)
TASKS = 6_000
ROUNDS = 2
PAUSES = {"no-op handler": 0.0, "handler that sleeps 1 ms": 0.001}
QUEUE = "multiprocessing.Queue"
SERVER = "board on the embedded server"
SHARED = "SharedMemoryBoard"

names = (f"workers-{os.getpid()}-{number}" for number in itertools.count())


@attrs.frozen
class DrainRun:
    """The result of all processes together."""

    rate: float
    more: dict[str, float]


@pytest.fixture(scope="module")
def crew(record: FigureRecord) -> Iterator[WorkerPool]:
    """The largest number of processes that is needed."""
    record.note(
        x="worker processes", cores=os.cpu_count(), tasks=TASKS, rounds=ROUNDS, at_a_time=WIDTH
    )
    with WorkerPool(max(WORKERS)) as crew:
        yield crew


async def server_time(hub: rxd.Hub) -> float:
    """Return the CPU seconds of the server."""
    redis: Any = hub.client.redis  # The types of redis-py's commands are partial.
    info = await redis.info("cpu")
    return float(info["used_cpu_user"]) + float(info["used_cpu_sys"])


async def submit(board: rxd.Board[int]) -> None:
    """Submit the tasks."""
    await board.submit(rxd.Task(number) for number in range(TASKS))


def once(shifts: list[DrainShift]) -> bool:
    """Return whether each task was handled exactly once."""
    numbers = numbers_of(shifts)
    return len(numbers) == TASKS and set(numbers) == set(range(TASKS))


def run_of(shifts: list[DrainShift], server: float) -> DrainRun:
    """Return the rate, and how evenly the tasks were shared."""
    seconds = max(shift.end for shift in shifts) - min(shift.begin for shift in shifts)
    shares = [len(numbers_of([shift])) / TASKS * len(shifts) for shift in shifts]
    more = {
        "least": min(shares),
        "most": max(shares),
        "workers": sum(shift.cpu for shift in shifts) / seconds,
    }
    if server:
        more["server"] = server / seconds
    return DrainRun(TASKS / seconds, more)


def drain(
    case: str,
    record: FigureRecord,
    crew: WorkerPool,
    hub: rxd.Hub,
    runner: asyncio.Runner,
    pause: float,
    workers: int,
) -> DrainRun:
    """Fill the queue or one of the boards, and drain it."""
    spent = 0.0
    with ExitStack() as stack:
        if case == QUEUE:
            for number in range(TASKS):
                crew.queue.put(number)
            shifts = crew.drain(DrainJob(None, None, pause), workers)
        elif case == SHARED:
            shared = rxd.SharedMemoryBoard[int].create(next(names), capacity=2 * TASKS)
            stack.callback(shared.close)
            stack.callback(shared.unlink)
            runner.run(submit(shared))
            shifts = crew.drain(DrainJob(shared.name, None, pause), workers)
        else:
            board: rxd.Board[int] = hub.board(next(names))
            runner.run(submit(board))
            before = runner.run(server_time(hub))
            url = f"unix://{hub.client.target.path}"
            shifts = crew.drain(DrainJob(board.name, url, pause), workers)
            spent = runner.run(server_time(hub)) - before
    record.control("every task was done once", once(shifts))
    return run_of(shifts, spent)


@pytest.mark.parametrize("workers", WORKERS)
@pytest.mark.parametrize("handler", PAUSES)
@pytest.mark.benchmark(group="workers")
def bench_workers(
    benchmark: BenchmarkFixture,
    record: FigureRecord,
    crew: WorkerPool,
    hub: rxd.Hub,
    runner: asyncio.Runner,
    handler: str,
    workers: int,
) -> None:
    """Boards and the queue in turn, with *workers* processes."""
    runs: dict[str, list[DrainRun]] = {case: [] for case in (QUEUE, SERVER, SHARED)}

    def turn() -> None:
        for case, found in runs.items():
            found.append(drain(case, record, crew, hub, runner, PAUSES[handler], workers))

    benchmark.pedantic(turn, rounds=ROUNDS)
    if benchmark.stats is None:
        return
    for case, found in runs.items():
        best = max(found, key=lambda run: run.rate)
        more: dict[str, Any] = best.more | {"median": statistics.median(run.rate for run in found)}
        base = None if case == QUEUE else QUEUE
        record.add(case, best.rate, "1/s", group=handler, x=workers, base=base, **more)
