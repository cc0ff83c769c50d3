"""
Where does the time go, from claim to settlement and from a message to L1?

A sampler looks at the thread a thousand times a second, while it drains no-op tasks from the
embedded server (64 handlers at a time), and while a feed of 10,000 nodes follows another process
that publishes heartbeats as fast as it can. The figures are microseconds of the wall clock per task
or message; a step includes its calls, unless they are steps of their own. Beside them is the CPU of
the server's thread, which for the tasks includes submitting them.
"""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.flood import Flood, followed, published, saved
from benchmarks.support.sampler import OTHER, Sampler, Steps
from benchmarks.support.usage import server_seconds
from rxdispatch import operators as ops
from rxdispatch.nodes.records import MessageReader

TASKS = 40_000
MESSAGES = 20_000
ROUNDS = 3
WIDTH = 64

BELOW: Final[Steps] = {
    "wait": ["selectors.py"],
    "event loop": [
        "asyncio/base_events.py",
        "asyncio/events.py",
        "asyncio/selector_events.py",
        "asyncio/tasks.py",
        "asyncio/futures.py",
        "asyncio/timeouts.py",
        "asyncio/locks.py",
    ],
    "socket, streams and hiredis": [
        "asyncio/streams.py",
        "_parsers/hiredis.py",
        "_parsers/base.py",
        "asyncio/connection.py",
        "store/connections/wire.py",
    ],
    "RxPY: from operator to operator": [
        "observer/autodetachobserver.py",
        "observer/observer.py",
        "observable/observable.py",
        "subject/subject.py",
    ],
}
WORK: Final[Steps] = {
    **BELOW,
    "call: retries and limits in time": ["store/client.py", "store/connections/connection_pool.py"],
    "claim: read the reply": ["boards/redis/engine.py:RedisEngine.claim"],
    "claim: task and Claim": ["boards/claiming/claim_reader.py", "boards/task_codec.py"],
    "claim: hold and renew": [
        "tasks/_lease_keeper.py:LeaseKeeper.add",
        "tasks/_lease_keeper.py:LeaseKeeper._tick",
    ],
    "claim: hand out, decide how many": ["tasks/_claim_buffer.py", "tasks/_claim.py"],
    "execute: slots and workers": ["tasks/_execution.py", "valve.py"],
    "execute: context and coroutine": ["tasks/_attempt.py"],
    "execute: the handler": ["bench_steps.py:nothing"],
    "settle: batch and pass on": ["tasks/_settle.py", "streams/_run.py"],
    "settle: settlements and answers": [
        "boards/base.py",
        "boards/claiming/claim_writer.py",
        "rxdispatch/claim.py:Outcome.settlement",
        "tasks/_lease_keeper.py",
    ],
    "settle: arguments and reply": ["boards/redis/engine.py"],
}
FEED: Final[Steps] = {
    **BELOW,
    "Pub/Sub: read, hand to its channel": [
        "store/pubsub/session.py",
        "store/pubsub/channels.py",
        "relay.py",
    ],
    "stream: parse, order, gaps": ["nodes/feed/sequencer.py", "nodes/records.py"],
    "replica: new Node into L1": [
        "nodes/replica/replica.py",
        "rxdispatch/node.py",
        "nodes/placement/placements.py",
    ],
    "feed: views, waiters, changes": [
        "nodes/feed/feed.py",
        "nodes/placement/candidates.py",
        "nodes/feed/sync.py",
        "nodes/feed/stats.py",
        "nodes/feed/snapshot_sync.py",
        "nodes/placement/criteria_cache.py",
    ],
    "the subscriber": ["nodes/flood.py"],
}


async def nothing(_: rxd.Task[str]) -> None:
    """Do nothing."""


async def sampled(
    record: FigureRecord,
    group: str,
    hub: rxd.Hub,
    steps: Steps,
    count: int,
    once: Callable[[Sampler], Awaitable[float]],
) -> None:
    """Record microseconds by step, for several rounds of *once*, which returns its seconds."""
    await once(Sampler(steps))
    sampler, passed, before = Sampler(steps), 0.0, await server_seconds(hub)
    for _ in range(ROUNDS):
        passed += await once(sampler)
    each = passed / (count * ROUNDS) * 1e6
    server = (await server_seconds(hub) - before) / (count * ROUNDS) * 1e6
    record.add("in all", each, "us", group=group)
    for name in (*steps, OTHER):
        if sampler.found[name]:
            record.add(name, sampler.share(name) * each, "us", group=group, base="in all")
    record.add("the server's thread, filling included", server, "us", group=group, base="in all")
    record.control("three in four samples or more belong to a step", sampler.share(OTHER) < 0.25)
    # "pytest -s" shows where the samples fell that belong to no step.
    for place, times in sampler.strays.most_common(20):
        print(f"  stray {times / sampler.found.total():6.1%} {place}")


async def tasks(record: FigureRecord, hub: rxd.Hub, count: int) -> None:
    """Record the steps from claim to settlement."""
    board = hub.board("steps")

    async def once(sampler: Sampler) -> float:
        await board.submit(rxd.Task("x" * 20) for _ in range(count))
        stream = board.claims(until="joined").pipe(
            ops.execute(nothing, max_concurrent=WIDTH), ops.settle(board)
        )
        begun = time.perf_counter()
        with sampler:
            await rxd.run(stream)
        return time.perf_counter() - begun

    await sampled(record, "claim, execute, settle: us a task", hub, WORK, count, once)
    done = (await board.counts()).done
    record.control("every task was settled once", done == count * (ROUNDS + 1))


async def messages(record: FigureRecord, hub: rxd.Hub, count: int) -> None:
    """Record the steps from a message to L1."""
    _, beats = await published(hub, count)
    fleet: Any = hub._fleet
    with tempfile.TemporaryDirectory() as folder:
        path, channel = str(hub.client.target.path), fleet.keys.changes
        flood = await Flood.start(path, saved(beats, folder), channel)
        start = MessageReader().message(beats[0]).first

        async def once(sampler: Sampler) -> float:
            async with hub.feed() as feed:
                with sampler:
                    return count / await followed(feed, flood, start, count)

        try:
            await sampled(record, "message to L1: us a message", hub, FEED, count, once)
        finally:
            await flood.stop()


def bench_tasks(
    record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner, size: int | None
) -> None:
    """From claim to settlement."""
    record.note(tasks=size or TASKS, rounds=ROUNDS, width=WIDTH)
    runner.run(tasks(record, hub, size or TASKS))


def bench_messages(record: FigureRecord, size: int | None) -> None:
    """From a message to L1, on a server of its own."""
    record.note(messages=size or MESSAGES)

    async def measured() -> None:
        async with rxd.connect() as hub:
            await messages(record, hub, size or MESSAGES)

    asyncio.run(measured())
