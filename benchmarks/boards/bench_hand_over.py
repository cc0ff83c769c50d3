# pyright: basic
# The types of redis-py's commands are partial.
"""
What does one task cost among many idle workers, from ``submit`` to the start of its handler?

Each round trip of the bare baseline, a ``PUBLISH`` by ``redis.asyncio`` until its subscriber has
the message, is taken right after one of ours, so that both meet the same load. The workers are in
the process that submits. The server's time per task is that of submit, hand-over, settlement and
the parking of the worker, without what waiting workers cost anyway. Then a crowd: many tasks at
once for many workers of few places. Then how long ``cancel`` takes to reach a running handler.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import ExitStack
from typing import Any

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import p50_p99
from benchmarks.support.usage import server_seconds
from rxdispatch import operators as ops

ROUNDS = 300
PAUSE = 0.005
QUIET = 3.0
CASES = ((1, 0), (10, 0), (100, 0), (100, 100), (1000, 0))
CROWD = (1000, 10_000)
BARE = "bare PUBLISH to a subscriber"
OURS = "submit until the handler starts"


async def server_calls(hub: rxd.Hub) -> int:
    """Return how many commands the server has executed for clients."""
    info = await hub.client.redis.info("commandstats")
    return sum(info.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("eval", "evalsha"))


async def one_by_one(hub: rxd.Hub, record: FigureRecord, workers: int, kinds: int) -> None:
    """Submit tasks one by one to idle workers."""
    board = hub.board(f"one-{workers}-{kinds}")
    names = [f"kind-{number}" for number in range(kinds)]
    started: asyncio.Queue[float] = asyncio.Queue()

    async def handler(_: rxd.Task[None]) -> None:
        started.put_nowait(time.perf_counter())

    subscriber = hub.client.redis.pubsub()
    await subscriber.subscribe("bare")
    await subscriber.get_message(timeout=1.0)
    ours: list[float] = []
    bare: list[float] = []
    with ExitStack() as streams:
        for number in range(workers):
            claims = board.claims(kinds=names or None, worker=f"w{number}", prefetch=16)
            work = claims.pipe(ops.execute(handler, max_concurrent=16), ops.settle(board))
            streams.enter_context(work.subscribe())
        await asyncio.sleep(1.0 + workers * 0.004)
        before, calls, begun = (
            await server_seconds(hub),
            await server_calls(hub),
            time.perf_counter(),
        )
        await asyncio.sleep(QUIET)
        waiting = (await server_seconds(hub) - before) / (time.perf_counter() - begun)
        polls = (await server_calls(hub) - calls) / QUIET
        for number in range(ROUNDS):
            begun = time.perf_counter()
            await board.submit(rxd.Task(None, kind=names[number % kinds] if kinds else "default"))
            ours.append(await started.get() - begun)
            await asyncio.sleep(PAUSE)
            begun = time.perf_counter()
            await hub.client.redis.publish("bare", "x")
            while await subscriber.get_message(timeout=1.0) is None:
                pass
            bare.append(time.perf_counter() - begun)
            await asyncio.sleep(PAUSE)
        before, begun = await server_seconds(hub), time.perf_counter()
        for number in range(ROUNDS):
            await board.submit(rxd.Task(None, kind=names[number % kinds] if kinds else "default"))
            await started.get()
            await asyncio.sleep(PAUSE)
        spent = await server_seconds(hub) - before - waiting * (time.perf_counter() - begun)
    await board._intakes.finished()
    await subscriber.aclose()
    what = f"{workers} idle workers" + (f", {kinds} kinds" if kinds else "")
    record.control(f"{what}: every task was done once", (await board.counts()).done == 2 * ROUNDS)
    for place, name in enumerate(("p50", "p99")):
        group = f"latency, {name}: {what}"
        record.add(BARE, 1e3 * p50_p99(bare)[place], "ms", group=group)
        limit = 1.5 if not place else None
        record.add(OURS, 1e3 * p50_p99(ours)[place], "ms", group=group, base=BARE, at_most=limit)
    record.add(
        what, 1e6 * spent / ROUNDS, "us", group="server CPU a task", at_most=150, judged="value"
    )
    record.add(what, polls, "1/s", group="calls a second while nothing happens")


async def crowd(hub: rxd.Hub, record: FigureRecord) -> None:
    """Submit many tasks to many idle workers at once."""
    workers, count = CROWD
    board = hub.board("crowd")
    done: Counter[str] = Counter()
    ended = asyncio.Event()

    async def handler(_: rxd.Task[None]) -> None:
        claim = rxd.current_claim()
        assert claim is not None
        done[claim.worker] += 1
        if done.total() == count:
            ended.set()
        await asyncio.sleep(0.05)

    with ExitStack() as streams:
        for number in range(workers):
            claims = board.claims(worker=f"w{number}", prefetch=10)
            work = claims.pipe(ops.execute(handler, max_concurrent=10), ops.settle(board))
            streams.enter_context(work.subscribe())
        await asyncio.sleep(1.0 + workers * 0.004)
        begun = time.perf_counter()
        await board.submit(rxd.Task(None) for _ in range(count))
        submitted = time.perf_counter() - begun
        await ended.wait()
        took = time.perf_counter() - begun
        await board.join()
    await board._intakes.finished()
    group = f"{count} tasks for {workers} idle workers"
    record.control("the crowd did every task once", (await board.counts()).done == count)
    record.add("submitted after", submitted, "s", group=group)
    record.add("all have begun after", took, "s", group=group, at_most=1.0, judged="value")
    record.add("workers that got none", float(workers - len(done)), "", group=group)


async def cancelling(hub: rxd.Hub, record: FigureRecord) -> None:
    """Cancel running tasks."""
    board = hub.board("cancel")
    started: asyncio.Queue[str] = asyncio.Queue()
    ended: asyncio.Queue[float] = asyncio.Queue()

    async def handler(task: rxd.Task[None]) -> None:
        started.put_nowait(task.id)
        try:
            await asyncio.sleep(60)
        finally:
            ended.put_nowait(time.perf_counter())

    took: list[float] = []
    with board.claims().pipe(ops.execute(handler), ops.settle(board)).subscribe():
        for _ in range(ROUNDS):
            await board.submit(rxd.Task(None))
            task_id = await started.get()
            begun = time.perf_counter()
            await board.cancel(task_id)
            took.append(await ended.get() - begun)
    await board._intakes.finished()
    for place, name in enumerate(("p50", "p99")):
        record.add(
            name,
            1e3 * p50_p99(took)[place],
            "ms",
            group="cancel until the handler is cancelled",
            at_most=100 if place else None,
            judged="value",
        )


async def measure(record: FigureRecord) -> None:
    """All of them on one embedded server each."""
    parts: list[Any] = [(one_by_one, *case) for case in CASES]
    for part, *arguments in [*parts, (crowd,), (cancelling,)]:
        async with rxd.connect() as hub:
            await part(hub, record, *arguments)


def bench_hand_over(record: FigureRecord) -> None:
    """One by one, a crowd, and cancellations."""
    record.note(rounds=ROUNDS)
    asyncio.run(measure(record))
