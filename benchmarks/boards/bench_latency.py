# pyright: basic
# The types of redis-py commands are partial.
"""
How long does it take from ``submit`` to the start of the handler, on an idle board?

Percentiles in milliseconds: a bare PUBLISH to a subscriber on the same server, which is the floor
for any wake-up, then ``board.submit`` of one task until its handler starts, in the same process and
in another one.
"""

from __future__ import annotations

import asyncio
import sys
import time

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.nodes.fleet import add_latencies
from benchmarks.support.roles import start_role
from rxdispatch import operators as ops

ROUNDS = 500
PAUSE = 0.005
BARE = "bare publish to a subscriber"
OURS = "submit until the handler starts, same process"
FAR = "the same, another process"


async def publish(hub: rxd.Hub) -> list[float]:
    """Measure PUBLISH until a subscriber has it."""
    subscriber = hub.client.redis.pubsub()
    await subscriber.subscribe("latency")
    await subscriber.get_message(timeout=1.0)
    took: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        await hub.client.redis.publish("latency", "x")
        while await subscriber.get_message(timeout=1.0) is None:
            pass
        took.append(time.perf_counter() - start)
        await asyncio.sleep(PAUSE)
    await subscriber.aclose()
    return took


async def same_process(hub: rxd.Hub) -> list[float]:
    """Measure submit until the handler starts, in one process."""
    board = hub.board("latency")
    started: asyncio.Queue[float] = asyncio.Queue()

    async def handler(_: rxd.Task[None]) -> None:
        started.put_nowait(time.perf_counter())

    work = board.claims().pipe(ops.execute(handler), ops.settle(board)).subscribe()
    await asyncio.sleep(0.2)
    took: list[float] = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        await board.submit(rxd.Task(None))
        took.append(await started.get() - start)
        await asyncio.sleep(PAUSE)
    work.dispose()
    return took


async def worker(url: str) -> None:
    """The other process: print when each handler started."""
    async with rxd.connect(url) as hub:
        board = hub.board("far")

        async def handler(_: rxd.Task[int]) -> None:
            print(time.perf_counter(), flush=True)

        work = board.claims().pipe(ops.execute(handler), ops.settle(board)).subscribe()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        work.dispose()


async def other_process(hub: rxd.Hub) -> list[float]:
    """Measure submit until the handler starts in another process, by the host's clock."""
    process = await start_role(__name__, f"unix://{hub.client.target.path}")
    assert process.stdout is not None
    assert process.stdin is not None
    await asyncio.sleep(0.2)
    board = hub.board("far")
    took: list[float] = []
    for number in range(ROUNDS):
        start = time.perf_counter()
        await board.submit(rxd.Task(number))
        took.append(float(await process.stdout.readline()) - start)
        await asyncio.sleep(PAUSE)
    process.stdin.close()
    await process.wait()
    return took


def bench_latency(record: FigureRecord, hub: rxd.Hub, runner: asyncio.Runner) -> None:
    """All three on one embedded server."""
    record.note(rounds=ROUNDS)
    took = {
        BARE: runner.run(publish(hub)),
        OURS: runner.run(same_process(hub)),
        FAR: runner.run(other_process(hub)),
    }
    done = [runner.run(hub.board(name).counts()).done for name in ("latency", "far")]
    record.control("every task was settled once", done == [ROUNDS, ROUNDS])
    add_latencies(record, took, base=BARE, at_most={OURS: (0.6, 2.0)})


if __name__ == "__main__":
    asyncio.run(worker(sys.argv[1]))
