# pyright: basic
# The types of redis-py commands are partial.
"""
What does each call of a board cost the server, beside a script that does nothing?

Microseconds of the server's main thread, from ``INFO commandstats``, which leaves the network out.
First calls for one task each; then calls for 256 tasks, per task. The script that does nothing has
keys and arguments like a claim of one task. The clock of a server counts what other processes
take from it too, so the best of the rounds is recorded.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.support.scripts import claim_script, settle_script, submit_script

ROUNDS = 5
CALLS = 1000
BATCH = 256
NOTHING = "a script that does nothing"
RECORD = b"\x92\xa4\x78\x78\x78\x78\xcf\x00\x00\x01\x9a\x00\x00\x00\x00"

Call = Callable[[], Awaitable[Any]]


def rows(numbers: Iterator[int], count: int) -> list[bytes]:
    """Return the id, the record and the options of new tasks."""
    ids = [b"0190b3f0-0000-7000-8000-%012d" % n for n in itertools.islice(numbers, count)]
    return [part for name in ids for part in (name, RECORD, b"")]


async def measure(redis: Any, call: Call, times: int, tasks: int) -> float:
    """Call *times* times; return the server's microseconds per task."""

    async def spent() -> int:
        stats = await redis.info("commandstats")
        return sum(stats.get(f"cmdstat_{name}", {}).get("usec", 0) for name in ("evalsha", "eval"))

    before = await spent()
    for _ in range(times):
        await call()
    return (await spent() - before) / (times * tasks)


async def compare(record: FigureRecord) -> None:
    """Measure each call in turn, round by round."""
    best: dict[str, float] = {}
    async with rxd.connect() as hub:
        redis, board = hub.client.redis, hub.board("calls")
        numbers = itertools.count()
        nothing = await redis.script_load("return 1")
        keys = [f"{{rxd:calls}}:key{n}" for n in range(12)]
        claimed: list[tuple[int, list[bytes]]] = []

        async def submit(count: int) -> None:
            await submit_script(board, rows(numbers, count))

        async def claim(limit: int) -> None:
            claimed.append(await claim_script(board, limit))

        async def settle() -> None:
            await settle_script(board, *claimed.pop())

        async def look() -> None:
            await claim_script(board, 1)

        async def idle() -> None:
            await redis.evalsha(nothing, len(keys), *keys, *range(13))

        async def one_round() -> None:
            calls: list[tuple[str, Call, int, int]] = [
                (NOTHING, idle, CALLS, 1),
                ("a claim that finds nothing", look, CALLS, 1),
            ]
            for tasks, times in ((1, CALLS), (BATCH, CALLS // 20)):
                what = "one task" if tasks == 1 else f"a task, {tasks} a call"
                calls += [
                    (f"submit {what}", partial(submit, tasks), times, tasks),
                    (f"claim {what}", partial(claim, tasks), times, tasks),
                    (f"settle {what}", settle, times, tasks),
                ]
            for name, call, times, tasks in calls:
                cost = await measure(redis, call, times, tasks)
                best[name] = min(cost, best.get(name, cost))

        await submit_script(board, rows(numbers, 1))
        await settle_script(board, *await claim_script(board, 1))
        for _ in range(ROUNDS):
            await one_round()
        counts = await board.counts()
        done = ROUNDS * (CALLS + CALLS // 20 * BATCH) + 1
        record.control(
            "every task was done, once", (0, 0, done) == (counts.ready, counts.claimed, counts.done)
        )
    for name, cost in best.items():
        record.add(name, cost, "us", base=None if name == NOTHING else NOTHING)


def bench_server_calls(record: FigureRecord) -> None:
    """Each call in turn."""
    record.note(rounds=ROUNDS, calls=CALLS, batch=BATCH)
    asyncio.run(compare(record))
