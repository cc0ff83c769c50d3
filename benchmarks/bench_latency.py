# pyright: basic
# The types of redis-py commands are partial.
"""
How long from ``submit`` to the start of the handler, on an idle board?

Prints percentiles in milliseconds: a bare PUBLISH to a subscriber on the same server, which is
the floor for any wake-up, then ``board.submit`` of one task until its handler starts, in the
same process and in another one.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time

import rxdispatch as rxd
from rxdispatch import operators as ops

ROUNDS = 500
PAUSE = 0.005


def show(name: str, seconds: list[float]) -> None:
    """Print one row."""
    cuts = statistics.quantiles(seconds, n=100)
    print(f"{name:34s} p50 {cuts[49] * 1e3:6.2f} ms   p99 {cuts[98] * 1e3:6.2f} ms")


async def publish(hub: rxd.Hub) -> None:
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
    show("bare publish to subscriber", took)


async def same_process(hub: rxd.Hub) -> None:
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
    show("submit -> handler, same process", took)


async def worker(url: str) -> None:
    """Be the other process: print when each handler started."""
    async with rxd.connect(url) as hub:
        board = hub.board("far")

        async def handler(_: rxd.Task[int]) -> None:
            print(time.perf_counter(), flush=True)

        work = board.claims().pipe(ops.execute(handler), ops.settle(board)).subscribe()
        print("ready", flush=True)
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        work.dispose()


async def other_process(hub: rxd.Hub, url: str) -> None:
    """Measure submit until the handler starts in another process; the clock is the host's."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        __file__,
        "worker",
        url,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdin is not None
    await process.stdout.readline()
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
    show("submit -> handler, another process", took)


async def main() -> None:
    """Measure all three against one embedded server."""
    async with rxd.connect() as hub:
        await publish(hub)
        await same_process(hub)
        server = hub.client.target
        await other_process(hub, f"unix://{server.path}")


if __name__ == "__main__":
    asyncio.run(worker(sys.argv[2]) if sys.argv[1:2] == ["worker"] else main())
