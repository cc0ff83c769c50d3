"""
How long does a feed need to catch up on missed changes?

The fleet has 10,000 nodes (or ``--size``, which must be 10,000 or more; 100,000 takes some
minutes), and 100, 1,000 or 10,000 of them have changed. Medians of three rounds, in milliseconds:
the time that the server takes to return the pages; the whole time until the feed's nodes equal the
registry's and a subscriber has received the changes; and a full relist, for comparison.

The feed is disconnected from Pub/Sub and its sync task is stopped; the suite calls the steps of
that task itself.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import change, note_server, register
from rxdispatch.nodes.engine import FleetEngine

FLEET = 10_000
CHANGED = (100, 1_000, 10_000)
BUDGETS = {10_000: (3, 15, 120), 100_000: (10, 30, 200)}
ROUNDS = 3
PAGE = 1_000


async def took(step: Callable[[], Awaitable[Any]]) -> float:
    """Return the milliseconds of a step."""
    start = time.perf_counter()
    await step()
    return (time.perf_counter() - start) * 1e3


async def pages(engine: FleetEngine, after: int) -> None:
    """Fetch what has changed, without parsing it."""
    while True:
        page = await engine.changes(after, PAGE)
        if not page.more:
            return
        # The number of the last row, as there are no gaps.
        after += PAGE


async def measure(record: FigureRecord, hub: rxd.Hub, count: int) -> None:
    """Measure one fleet."""
    async with hub.feed() as feed:
        sync, engine = feed._sync, feed._sync._engine
        task = feed._replication._task
        assert task is not None
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        feed._replication._sources.dispose()
        received = 0

        def heard(_: rxd.NodeChange) -> None:
            nonlocal received
            received += 1

        found: dict[int, tuple[list[float], list[float]]] = {n: ([], []) for n in CHANGED}
        beat = 0
        before = feed.stats.relists
        relist: list[float] = []
        with feed.changes.subscribe(heard):
            for number in range(-1, ROUNDS):
                for changed, (bare, ours) in found.items():
                    beat += 1
                    # Spread over the fleet.
                    numbers = range(0, count, count // changed)
                    await change(hub, numbers, beat)
                    after, received = feed._replica.high, 0
                    server = await took(partial(pages, engine, after))
                    whole = await took(sync._catch_up)
                    assert received == changed + 1
                    assert feed._replica.high == after + changed
                    if number >= 0:  # the first round warms up
                        bare.append(server)
                        ours.append(whole)
                whole = await took(sync._relist)
                if number >= 0:
                    relist.append(whole)
        asked = feed.stats.relists - before == ROUNDS + 1
        record.control("the subscriber received every change; only relists were relists", asked)
        group = f"{count:,} nodes"
        record.add("relist", statistics.median(relist), "ms", group=group)
        for (changed, (bare, ours)), goal in zip(
            found.items(), BUDGETS.get(count, (None,) * len(CHANGED)), strict=True
        ):
            for case, times, bound in (
                ("pages of the server alone", bare, None),
                ("caught up", ours, goal),
            ):
                record.add(
                    case,
                    statistics.median(times),
                    "ms",
                    group=group,
                    x=changed,
                    base="relist",
                    at_most=bound,
                    judged="value",
                )


async def on_new_server(record: FigureRecord, count: int) -> None:
    """Measure a fleet on an embedded server of its own."""
    # On a busy machine a large fleet takes longer to read than a call may by default.
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=60.0))
    async with rxd.connect(settings=settings) as hub:
        await note_server(record, hub)
        await register(hub, count)
        await measure(record, hub, count)


def bench_feed_catchup(record: FigureRecord, size: int | None) -> None:
    """Catch up, then relist."""
    record.note(rounds=ROUNDS, page=PAGE)
    asyncio.run(on_new_server(record, size or FLEET))
