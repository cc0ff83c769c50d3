"""Stages and nodes with threads that hang, processes that die, and closed executors."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch.operators._function_pool import HandlerCrashedError
from tests.pipelines.stages.test_stage import AT_ONCE, through


def square_or_die(n: int) -> int:
    """Return the square, or kill the process."""
    if n == 2:
        os._exit(9)
    return n * n


async def same(n: int) -> int:
    """Return the argument."""
    return n


@pytest.fixture
def processes() -> Iterator[ProcessPoolExecutor]:
    """A pool of two processes."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=spawn) as pool:
        yield pool


@pytest.mark.parametrize("retry", [None, AT_ONCE])
async def test_a_process_that_dies_costs_one_item(
    processes: ProcessPoolExecutor, retry: Any
) -> None:
    """The item is not attempted again, as it has already killed two processes."""
    stage = rxd.stage(square_or_die, executor=processes, max_concurrent=3, backoff=retry)
    with capture_logs():
        got, failed, stats = await through(stage, range(5))
    assert [0, 1, 9, 16] == sorted(got)
    assert [(2, True)] == [(f.item, isinstance(f.__cause__, HandlerCrashedError)) for f in failed]
    assert (4, 1, 0) == (stats.results, stats.failed, stats.stages["square_or_die"].in_flight)


async def test_a_process_that_dies_costs_one_task_of_a_board(
    processes: ProcessPoolExecutor,
) -> None:
    """The task is dead, ``crashed``."""
    async with rxd.connect("memory://") as hub:
        stages = (
            rxd.stage(same),
            rxd.stage(square_or_die, name="square", executor=processes, board="squares"),
        )
        async with rxd.Pipeline(*stages, boards=hub.board) as p:
            for n in range(5):
                await p.submit(n, id=str(n))
        with capture_logs():
            await rxd.run(rxd.Pipeline(*stages).worker("square", hub.board, until="joined"))
        board = hub.board("squares")
        counts = await board.counts()
        letters = [(letter.task.id, letter.reason) async for letter in board.dead_letters()]
    assert (4, 1) == (counts.done, counts.dead)
    assert [("2", "crashed")] == letters


async def test_a_process_that_dies_costs_one_item_of_a_graph(
    processes: ProcessPoolExecutor,
) -> None:
    """The node goes on."""
    graph, got, failed = rxd.Graph(), list[int](), list[Any]()
    graph.add_node("square", square_or_die, executor=processes, max_concurrent=2)
    with capture_logs():
        async with graph.run() as run:
            run.results("square").subscribe(got.append)
            run.failures.subscribe(lambda failure: failed.append(failure.__cause__))
            for n in range(5):
                await run.submit("square", n)
    assert [0, 1, 9, 16] == sorted(got)
    assert [HandlerCrashedError] == [type(cause) for cause in failed]


@pytest.mark.parametrize("retry", [None, AT_ONCE])
async def test_a_closed_executor_ends_the_pipeline(retry: Any) -> None:
    """The executor's error is not the failure of an item."""
    failed: list[Any] = []
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    stage = rxd.stage(square_or_die, executor=pool, backoff=retry)

    async def run() -> None:
        async with rxd.Pipeline(stage) as p:
            p.failures.subscribe(failed.append)
            await p.feed(range(5))

    with capture_logs(), pytest.raises(RuntimeError, match="after shutdown"):
        await run()
    assert [] == failed


@pytest.mark.parametrize("retry", [None, AT_ONCE])
async def test_a_closed_executor_makes_no_task_dead(retry: Any) -> None:
    """The worker ends, and another worker can claim its tasks."""
    pool = ThreadPoolExecutor(1)
    pool.shutdown()
    async with rxd.connect("memory://", settings=rxd.Settings(grace=0)) as hub:
        stages = (rxd.stage(same), rxd.stage(abs, executor=pool, board="b", backoff=retry))
        async with rxd.Pipeline(*stages, boards=hub.board) as p:
            await p.feed(range(5))
        worker = rxd.Pipeline(*stages).worker("abs", hub.board, until="joined")
        with capture_logs(), pytest.raises(RuntimeError, match="after shutdown"):
            await rxd.run(worker)
        while (counts := await hub.board("b").counts()).claimed:
            await asyncio.sleep(0)
    assert (5, 0, 0) == (counts.ready, counts.done, counts.dead)


@pytest.mark.parametrize("retry", [None, rxd.Backoff(first=0.0, attempts=1)])
async def test_a_thread_that_hangs_costs_no_other_item(retry: Any) -> None:
    """Items behind it wait for the thread, and their timeouts have not begun."""
    release, began = threading.Event(), list[int]()

    def work(n: int) -> int:
        began.append(n)
        if n == 0:
            release.wait(10)
        return n

    got: list[int] = []
    failed: list[Any] = []
    async with rxd.Pipeline(rxd.stage(work, max_concurrent=1, timeout=0.05, backoff=retry)) as p:
        p.results.subscribe(got.append)
        p.failures.subscribe(lambda failure: failed.append(failure.item))
        for n in range(4):
            await p.submit(n)
        while not failed:
            await asyncio.sleep(0.01)
        # This is several times their timeout.
        await asyncio.sleep(0.3)
        assert ([0], []) == (began, got)
        release.set()
    assert ([0, 1, 2, 3], [1, 2, 3], [0]) == (began, got, failed)


@pytest.mark.parametrize("retry", [None, rxd.Backoff(first=0.0, attempts=1)])
async def test_an_executor_of_several_stages_does_not_cost_them_time(retry: Any) -> None:
    """The timeout of an item counts from the time at which its function begins."""
    release = threading.Event()
    got: list[int] = []
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(release.wait, 10)
        stages = [
            rxd.stage(abs, name=name, executor=pool, timeout=0.05, backoff=retry) for name in "ab"
        ]
        async with rxd.Pipeline(*stages) as p:
            p.results.subscribe(got.append)
            for n in range(3):
                await p.submit(n)
            await asyncio.sleep(0.3)
            release.set()
        assert held.result()
    assert [0, 1, 2] == sorted(got)
