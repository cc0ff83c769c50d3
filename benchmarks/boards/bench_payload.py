# pyright: basic
# pytest-benchmark has no types.
"""
What does a task cost by the size of its payload, from 20 bytes to 100 kB?

Microseconds per task for submitting, claiming and settling 64 at a time, by ``board.submit``,
``board.claim`` and ``board.settle``. All cases take turns in each round, and the best round counts.
The payload is a str of ASCII; *mb* is how many megabytes of payload pass in a second. The baseline
of the board on a server is SET, GET and UNLINK of the same bytes by redis-py, in pipelines of 64;
of the board in shared memory, ``multiprocessing.Queue``, put and got by one process; of the board
in memory, encoding and decoding by msgspec. The larger the payload, the fewer tasks a round has.
"""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import statistics
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

import rxdispatch as rxd
from benchmarks.figures.record import FigureRecord
from benchmarks.support.task_queues import Line, on_board, walk

SIZES = (20, 200, 2_000, 20_000, 100_000)
COUNT = 64
MOST = 32
BYTES = 8_000_000
ROUNDS = 5
#: Cells of shared memory; 64 tasks of 100 kB take 35,000.
CAPACITY = 65_536
STEPS = ("submit", "claim", "settle")
BASES = {
    "board on the embedded server": "SET, GET and UNLINK, pipelined",
    "SharedMemoryBoard": "multiprocessing.Queue",
    "MemoryBoard": "msgspec alone",
}

names = (f"payload-{number}" for number in itertools.count())


def pipelined(hub: rxd.Hub, payload: str) -> Line:
    """Return the baseline of a board on a server: one key for each payload."""
    redis: Any = hub.client.redis  # The types of redis-py's commands are partial.
    keys = [f"payload:{number:027}" for number in range(COUNT)]

    async def put(payloads: list[str]) -> None:
        async with redis.pipeline(transaction=False) as pipe:
            for key, text in zip(keys, payloads, strict=True):
                pipe.set(key, text)
            await pipe.execute()

    async def take() -> list[bytes]:
        async with redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.get(key)
            found: list[bytes] = await pipe.execute()
            return found

    async def end(_: object) -> None:
        async with redis.pipeline(transaction=False) as pipe:
            for key in keys:
                pipe.unlink(key)
            await pipe.execute()

    return Line(lambda: [payload] * COUNT, put, take, end)


def queued(queue: Any, payload: str) -> Line:
    """Return the baseline of a board in shared memory: a ``multiprocessing.Queue``."""

    async def put(payloads: list[str]) -> None:
        for text in payloads:
            queue.put(text)

    async def take() -> list[str]:
        return [queue.get() for _ in range(COUNT)]

    return Line(lambda: [payload] * COUNT, put, take)


def encoded(payload: str) -> Line:
    """Return the baseline of a board in memory: a list of what msgspec encodes and decodes."""
    encode = msgspec.msgpack.Encoder().encode
    decode = msgspec.msgpack.Decoder(str).decode
    held: list[bytes] = []

    async def put(payloads: list[str]) -> None:
        held.extend(encode(text) for text in payloads)

    async def take() -> list[str]:
        taken = [decode(data) for data in held]
        held.clear()
        return taken

    return Line(lambda: [payload] * COUNT, put, take)


def text_of(item: Any) -> str:
    """Return the payload of what was taken."""
    if isinstance(item, rxd.Claim):
        item = item.task.payload
    return item.decode() if isinstance(item, bytes) else item


async def same(line: Line, payload: str) -> bool:
    """Return whether what is taken is what was put."""
    await line.put(line.make())
    taken = await line.take()
    if line.end is not None:
        await line.end(taken)
    return [text_of(item) for item in taken] == [payload] * COUNT


@pytest.fixture(scope="module")
def queue() -> Iterator[Any]:
    """One queue for all sizes."""
    queue = multiprocessing.get_context("spawn").Queue()
    yield queue
    queue.close()
    queue.join_thread()


@pytest.fixture(scope="module")
def shared() -> Iterator[rxd.SharedMemoryBoard[str]]:
    """One board in shared memory for all sizes."""
    name = f"bench-payload-{os.getpid()}"
    with rxd.SharedMemoryBoard[str].create(name, capacity=CAPACITY) as board:
        board.unlink()
        yield board


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.benchmark(group="payload")
def bench_size(
    benchmark: BenchmarkFixture,
    record: FigureRecord,
    hub: rxd.Hub,
    runner: asyncio.Runner,
    queue: Any,
    shared: rxd.SharedMemoryBoard[str],
    size: int,
) -> None:
    """All cases with payloads of one size."""
    payload = "x" * size
    name = next(names)
    cases = {
        "SET, GET and UNLINK, pipelined": pipelined(hub, payload),
        "multiprocessing.Queue": queued(queue, payload),
        "msgspec alone": encoded(payload),
        "board on the embedded server": on_board(hub.board(name), payload, COUNT),
        "MemoryBoard": on_board(rxd.MemoryBoard(name), payload, COUNT),
        "SharedMemoryBoard": on_board(shared, payload, COUNT),
    }
    for line in cases.values():
        record.control("what is taken is what was put", runner.run(same(line, payload)))
    times = max(2, min(MOST, BYTES // (size * COUNT)))
    took: dict[str, list[list[float]]] = {case: [] for case in cases}

    async def turn() -> None:
        for case, line in cases.items():
            took[case].append(await walk(line, times))

    benchmark.pedantic(lambda: runner.run(turn()), rounds=ROUNDS)
    if benchmark.stats is None:
        return
    record.note(
        x="bytes of payload", at_a_time=COUNT, rounds=ROUNDS, **{f"tasks_of_{size}": times * COUNT}
    )
    for case, rounds in took.items():
        each = [[seconds / times / COUNT * 1e6 for seconds in steps] for steps in rounds]
        best = min(each, key=sum)
        more: dict[str, Any] = {name: us for name, us in zip(STEPS, best, strict=True) if us > 0.01}
        more |= {"median": statistics.median(map(sum, each)), "mb": size / sum(best)}
        record.add(case, sum(best), "us", group="by size", x=size, base=BASES.get(case), **more)
