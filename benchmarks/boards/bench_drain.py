# pyright: basic
# pytest-benchmark has no types.
"""
How fast does one process drain a board, beside a bare loop of the same scripts?

The bare loop calls the claim and the settle script and overlaps the two, 256 tasks at a time;
it makes no task objects and runs no handler. The pipeline is what a user writes:
``board.claims() | execute(handler) | settle(board)`` with a coroutine that does nothing.
Embedded server, 20-byte payloads; only draining is timed, not filling the board.
"""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.support.scripts import claim_script, settle_script
from rxdispatch import operators as ops

TASKS = 20_000
ROUNDS = 5
CHUNK = 256
WIDTHS = (16, 64, 256)
BARE = "bare loop of the same scripts"

names = (f"drain-{number}" for number in itertools.count())


def drained(
    case: str,
    record: FigureRecord,
    benchmark: BenchmarkFixture,
    runner: asyncio.Runner,
    board: rxd.Board[str],
    **row: Any,
) -> None:
    """Record the rate, and check that every task was settled once."""
    counts = runner.run(board.counts())
    once = counts == rxd.Counts(0, 0, 0, TASKS * rounds(benchmark), 0)
    record.control("every task was settled once", once)
    stats = benchmark.stats
    if stats is not None:
        median = round(TASKS / stats["median"])
        record.add(case, round(TASKS / stats["min"]), "1/s", **row, median=median)


def rounds(benchmark: BenchmarkFixture) -> int:
    """Return the number of rounds: one if nothing is measured."""
    return ROUNDS if benchmark.enabled else 1


async def fill(board: rxd.Board[str]) -> None:
    """Put tasks on the board."""
    await board.submit(rxd.Task("x" * 20) for _ in range(TASKS))


@pytest.mark.benchmark(group="drain 20,000 tasks")
def bench_bare_loop(
    benchmark: BenchmarkFixture, record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner
) -> None:
    """The scripts alone."""
    board = hub.board(next(names))

    async def drain() -> None:
        settling: asyncio.Task[bytes] | None = None
        while True:
            first, ids = await claim_script(board, CHUNK)
            if settling is not None:
                await settling
            if not ids:
                return
            settling = asyncio.create_task(settle_script(board, first, ids))

    benchmark.pedantic(
        lambda: runner.run(drain()), setup=lambda: runner.run(fill(board)), rounds=ROUNDS
    )
    drained(BARE, record, benchmark, runner, board)


async def nothing(_: rxd.Task[str]) -> None:
    """Do nothing."""


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.benchmark(group="drain 20,000 tasks")
def bench_pipeline(
    benchmark: BenchmarkFixture,
    record: FigureRecord,
    hub: rxd.Hub,
    runner: asyncio.Runner,
    width: int,
) -> None:
    """The whole pipeline, with *width* handlers at a time."""
    board = hub.board(next(names))

    async def drain() -> None:
        await rxd.run(
            board.claims(until="joined").pipe(
                ops.execute(nothing, max_concurrent=width), ops.settle(board)
            )
        )

    benchmark.pedantic(
        lambda: runner.run(drain()), setup=lambda: runner.run(fill(board)), rounds=ROUNDS
    )
    case = f"claims | execute | settle, {width} at a time"
    if benchmark.stats is not None and width == WIDTHS[0]:
        rate = round(TASKS / benchmark.stats["min"])
        record.add(case, rate, "1/s", group="by itself", at_least=70_000)
    drained(case, record, benchmark, runner, board, base=BARE, at_least=0.80)


@pytest.mark.benchmark(group="drain 20,000 tasks")
def bench_pipeline_in_memory(
    benchmark: BenchmarkFixture, record: FigureRecord, runner: asyncio.Runner
) -> None:
    """The whole pipeline on a MemoryBoard, 64 handlers at a time."""
    board = rxd.MemoryBoard(next(names))

    async def drain() -> None:
        await rxd.run(
            board.claims(until="joined").pipe(
                ops.execute(nothing, max_concurrent=64), ops.settle(board)
            )
        )

    benchmark.pedantic(
        lambda: runner.run(drain()), setup=lambda: runner.run(fill(board)), rounds=ROUNDS
    )
    drained("the same on a MemoryBoard, 64 at a time", record, benchmark, runner, board, base=BARE)
