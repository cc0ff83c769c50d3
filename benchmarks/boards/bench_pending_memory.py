# pyright: basic
# The types of redis-py commands are partial.
"""
How many bytes does a pending task take?

For 50,000 ready tasks with default ids and payloads of 20 bytes: the size of the ids and payloads
alone, then the growth of each place that keeps them.
"""

from __future__ import annotations

import asyncio
import gc
import shutil
import subprocess
import tempfile
import tracemalloc
from pathlib import Path

import rxdispatch as rxd
from benchmarks.figures.machine import server_version
from benchmarks.figures.record import FigureRecord

TASKS = 50_000
CHUNK = 10_000
ALONE = "id and payload alone"


async def fill(board: rxd.Board[str]) -> None:
    """Put the tasks on *board* without keeping them here."""
    for _ in range(TASKS // CHUNK):
        await board.submit([rxd.Task("x" * 20) for _ in range(CHUNK)])


def keep(record: FigureRecord, place: str, used: float, limit: int) -> None:
    """Record the bytes a task."""
    record.add(place, used / TASKS, "B", base=ALONE, at_most=limit, judged="value")


async def on_server(record: FigureRecord, url: str | None, limit: int) -> None:
    """Measure the growth of a server's memory."""
    async with rxd.connect(url) as hub:
        redis = hub.client.redis
        place = server_version(await redis.info("server"))
        board = hub.board("memory")
        await board.submit(rxd.Task("warm"))
        before = (await redis.info("memory"))["used_memory"]
        await fill(board)
        # Kept replies expire with their session; they are not part of a pending task.
        for key in [key async for key in redis.scan_iter("*:session:*", count=1000)]:
            await redis.delete(key)
        used = (await redis.info("memory"))["used_memory"] - before
        ready = (await board.counts()).ready
        record.control("every task was ready while it was measured", ready == TASKS + 1)
        keep(record, place, used, limit)


async def in_memory(record: FigureRecord) -> None:
    """Measure the growth of this process."""
    board = rxd.MemoryBoard("memory")
    await board.submit(rxd.Task("warm"))
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    await fill(board)
    gc.collect()
    used = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    keep(record, "MemoryBoard", used, 400)


async def on_redis(record: FigureRecord) -> None:
    """Measure the Redis of the system, where there is one."""
    binary = shutil.which("redis-server")
    if binary is None:
        return
    with tempfile.TemporaryDirectory() as folder:
        socket = Path(folder) / "s"
        command = [binary, "--port", "0", "--unixsocket", str(socket), "--save", ""]
        server = await asyncio.create_subprocess_exec(*command, stdout=subprocess.DEVNULL)
        try:
            # The client retries to connect for two seconds, until the server is there.
            await on_server(record, f"unix://{socket}", 320)
        finally:
            server.terminate()
            await server.wait()


def bench_pending_memory(record: FigureRecord) -> None:
    """Each place in turn."""
    record.note(tasks=TASKS)
    record.add(ALONE, 36 + 20, "B")
    asyncio.run(in_memory(record))
    asyncio.run(on_server(record, None, 240))
    asyncio.run(on_redis(record))
