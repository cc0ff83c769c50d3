# pyright: basic
# pytest-benchmark has no types.
"""
How fast can tasks be put on a board, beside a bare loop of the same script?

The bare loop sends ready-made rows; ``submit`` checks and encodes ready-made tasks; the last case
also makes the tasks. Embedded server, 20-byte payloads, chunks of 1,000.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.support.scripts import submit_script
from rxdispatch.boards.task_codec import TaskCodec

TASKS = 20_000
ROUNDS = 5
BARE = "bare loop of the same script"

names = (f"submit-{number}" for number in itertools.count())


def make() -> list[rxd.Task[str]]:
    """Return new tasks."""
    return [rxd.Task("x" * 20) for _ in range(TASKS)]


def submitted(
    case: str,
    record: FigureRecord,
    benchmark: BenchmarkFixture,
    runner: asyncio.Runner,
    board: rxd.Board[str],
    **row: Any,
) -> None:
    """Record the rate, and check that every task is on the board."""
    rounds = ROUNDS if benchmark.enabled else 1
    ready = runner.run(board.counts()).ready
    record.control("every task is ready once", ready == TASKS * rounds)
    stats = benchmark.stats
    if stats is not None:
        median = round(TASKS / stats["median"])
        record.add(case, round(TASKS / stats["min"]), "1/s", **row, median=median)


@pytest.mark.benchmark(group="submit 20,000 tasks")
def bench_bare_loop(
    benchmark: BenchmarkFixture, record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner
) -> None:
    """The script alone."""
    board = hub.board(next(names))
    codec: TaskCodec[str] = TaskCodec(str)

    def setup() -> tuple[tuple[list[list[bytes]]], dict[str, object]]:
        rows: list[list[bytes]] = []
        entries = codec.encode_all(make())
        for start in range(0, TASKS, 1000):
            chunk = entries[start : start + 1000]
            rows.append([part for e in chunk for part in (e.id.encode(), e.record, b"")])
        return (rows,), {}

    async def submit(rows: list[list[bytes]]) -> None:
        for chunk in rows:
            await submit_script(board, chunk)

    benchmark.pedantic(lambda rows: runner.run(submit(rows)), setup=setup, rounds=ROUNDS)
    submitted(BARE, record, benchmark, runner, board)


@pytest.mark.benchmark(group="submit 20,000 tasks")
def bench_ready_made(
    benchmark: BenchmarkFixture, record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner
) -> None:
    """``board.submit`` of tasks that exist."""
    board = hub.board(next(names))
    benchmark.pedantic(
        lambda tasks: runner.run(board.submit(tasks)),
        setup=lambda: ((make(),), {}),
        rounds=ROUNDS,
    )
    case = "board.submit of ready-made tasks"
    bounds = {"at_least": 120_000, "judged": "value"}
    submitted(case, record, benchmark, runner, board, base=BARE, **bounds)


@pytest.mark.benchmark(group="submit 20,000 tasks")
def bench_with_making(
    benchmark: BenchmarkFixture, record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner
) -> None:
    """``board.submit``, including making the tasks."""
    board = hub.board(next(names))
    benchmark.pedantic(lambda: runner.run(board.submit(make())), rounds=ROUNDS)
    case = "board.submit, making the tasks"
    bounds = {"at_least": 80_000, "judged": "value"}
    submitted(case, record, benchmark, runner, board, base=BARE, **bounds)
