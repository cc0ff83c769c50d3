# pyright: basic
# pytest-benchmark has no types.
"""
How fast can tasks be put on a board, beside a bare loop of the same script?

The bare loop sends ready-made rows; ``submit`` checks and encodes ready-made tasks; the last
also makes the tasks. Embedded server, 20-byte payloads, chunks of 1,000.
"""

from __future__ import annotations

import asyncio
import itertools

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rxdispatch as rxd
from benchmarks.scripts import submit_script
from rxdispatch.boards.codec import TaskCodec

TASKS = 20_000
ROUNDS = 5

names = (f"submit-{number}" for number in itertools.count())


def make() -> list[rxd.Task[str]]:
    """Return new tasks."""
    return [rxd.Task("x" * 20) for _ in range(TASKS)]


def noted(benchmark: BenchmarkFixture) -> None:
    """Note the rate."""
    if benchmark.stats is not None:
        benchmark.extra_info["tasks_per_second"] = round(TASKS / benchmark.stats["min"])


@pytest.mark.benchmark(group="submit 20,000 tasks")
def test_bare_loop(benchmark: BenchmarkFixture, hub: rxd.Hub, runner: asyncio.Runner) -> None:
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
    assert runner.run(board.counts()).ready == TASKS * ROUNDS
    noted(benchmark)


@pytest.mark.benchmark(group="submit 20,000 tasks")
def test_ready_made(benchmark: BenchmarkFixture, hub: rxd.Hub, runner: asyncio.Runner) -> None:
    """``board.submit`` of tasks that exist."""
    board = hub.board(next(names))
    benchmark.pedantic(
        lambda tasks: runner.run(board.submit(tasks)),
        setup=lambda: ((make(),), {}),
        rounds=ROUNDS,
    )
    assert runner.run(board.counts()).ready == TASKS * ROUNDS
    noted(benchmark)


@pytest.mark.benchmark(group="submit 20,000 tasks")
def test_with_making(benchmark: BenchmarkFixture, hub: rxd.Hub, runner: asyncio.Runner) -> None:
    """``board.submit`` and the making of the tasks."""
    board = hub.board(next(names))
    benchmark.pedantic(lambda: runner.run(board.submit(make())), rounds=ROUNDS)
    assert runner.run(board.counts()).ready == TASKS * ROUNDS
    noted(benchmark)
