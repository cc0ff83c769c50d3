"""The cases of the guard: our code and its baseline, each short, and timed separately."""

from __future__ import annotations

import asyncio
import itertools
import multiprocessing
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
import msgspec
from reactivex import operators as rx
from reactivex.scheduler.eventloop import AsyncIOScheduler
from reactivex.subject import Subject

import rxdispatch as rxd
from benchmarks.nodes.fleet import register
from benchmarks.support.scripts import claim_script, settle_script, submit_script
from rxdispatch import operators as ops
from rxdispatch.boards.task_codec import TaskCodec

__all__ = ["GuardCase", "cases"]

TASKS = 3_000
ITEMS = 10_000
WIDTH = 64
NODES = 200
READS = 50_000

Seconds = Callable[[], Awaitable[float]]
names = (f"guard-{os.getpid()}-{number}" for number in itertools.count())


@attrs.frozen
class GuardCase:
    """Two ways to do the same thing, ours and the baseline; each returns the seconds it took."""

    name: str
    ours: Seconds
    base: Seconds


async def nothing(item: Any) -> Any:
    """Do nothing."""
    return item


def tasks() -> list[rxd.Task[str]]:
    """Return new tasks."""
    return [rxd.Task("x" * 20) for _ in range(TASKS)]


async def timed(work: Awaitable[Any]) -> float:
    """Return the seconds of *work*."""
    start = time.perf_counter()
    await work
    return time.perf_counter() - start


async def handler(task: rxd.Task[str]) -> rxd.Task[str]:
    """Do nothing with a task."""
    return task


async def pipeline(board: rxd.Board[str]) -> float:
    """Drain a board by claims, execute and settle."""
    await board.submit(tasks())
    work = ops.execute(handler, max_concurrent=WIDTH)
    claims = board.claims(until="joined")
    seconds = await timed(rxd.run(claims.pipe(work, ops.settle(board))))
    assert (await board.counts()).done >= TASKS
    return seconds


async def bare_loop(board: rxd.Board[str]) -> float:
    """Drain a board by its scripts."""
    await board.submit(tasks())

    async def drain() -> None:
        while True:
            first, ids = await claim_script(board, 256)
            if not ids:
                return
            await settle_script(board, first, ids)

    return await timed(drain())


async def ready_made(board: rxd.Board[str]) -> float:
    """Submit tasks."""
    made = tasks()
    return await timed(board.submit(made))


async def bare_submit(board: rxd.Board[str]) -> float:
    """Submit the rows of tasks."""
    codec: TaskCodec[str] = TaskCodec(str)
    entries = codec.encode_all(tasks())
    chunks = [
        [part for e in entries[at : at + 1000] for part in (e.id.encode(), e.record, b"")]
        for at in range(0, TASKS, 1000)
    ]

    async def submit() -> None:
        for rows in chunks:
            await submit_script(board, rows)

    return await timed(submit())


async def queue_workers() -> float:
    """Take the same number of items from a queue, by the same number of workers."""
    queue: asyncio.Queue[int] = asyncio.Queue()
    for number in range(TASKS):
        queue.put_nowait(number)

    async def worker() -> None:
        while not queue.empty():
            await asyncio.create_task(nothing(queue.get_nowait()))

    return await timed(asyncio.wait([asyncio.create_task(worker()) for _ in range(WIDTH)]))


async def numbers() -> AsyncIterator[int]:
    """Yield numbers."""
    for number in range(ITEMS):
        yield number


async def mapped() -> float:
    """Run coroutines by ``map_async``."""
    stream = rxd.from_async_iterable(numbers())
    return await timed(rxd.run(stream.pipe(ops.map_async(nothing, max_concurrent=WIDTH))))


async def created() -> float:
    """Run coroutines by ``create_task``, 64 at a time."""
    room = asyncio.Semaphore(WIDTH)

    async def all_of_them() -> None:
        async with asyncio.TaskGroup() as group:
            async for number in numbers():
                await room.acquire()
                group.create_task(nothing(number)).add_done_callback(lambda _: room.release())

    return await timed(all_of_them())


def batched(operator: Callable[[], Any]) -> Seconds:
    """Return a function that pushes items through an operator that makes lists."""

    async def push() -> float:
        source: Subject[int] = Subject()
        lists: list[list[int]] = []
        subscription = source.pipe(operator()).subscribe(lists.append)
        start = time.perf_counter()
        for number in range(ITEMS):
            source.on_next(number)
        seconds = time.perf_counter() - start
        subscription.dispose()
        assert len(lists) >= ITEMS // 100
        return seconds

    return push


def rxpy_batch() -> Any:
    """RxPY's operator, on this loop."""
    scheduler = AsyncIOScheduler(asyncio.get_running_loop())
    return rx.buffer_with_time_or_count(1.0, 100, scheduler=scheduler)


def reading(get: Callable[[str], Any]) -> Seconds:
    """Return a function that calls *get* many times."""

    async def read() -> float:
        assert get("node-000007") is not None
        start = time.perf_counter()
        for _ in range(READS):
            get("node-000007")
        return time.perf_counter() - start

    return read


async def shared() -> float:
    """Claim and settle on a board in shared memory."""
    with rxd.SharedMemoryBoard[str].create(next(names), capacity=TASKS) as board:
        try:
            await board.submit(tasks())

            async def drain() -> None:
                while claims := await board.claim(256):
                    await board.settle([claim.done() for claim in claims])

            return await timed(drain())
        finally:
            board.unlink()


async def process_queue() -> float:
    """Take encoded tasks out of a ``multiprocessing.Queue`` while its thread fills it."""
    queue: Any = multiprocessing.get_context("fork").Queue()
    decode = msgspec.msgpack.Decoder().decode
    rows = [msgspec.msgpack.encode((f"{number:036}", "x" * 20)) for number in range(TASKS)]
    start = time.perf_counter()
    for row in rows:
        queue.put(row)
    for _ in rows:
        decode(queue.get())
    seconds = time.perf_counter() - start
    queue.close()
    queue.join_thread()
    return seconds


@asynccontextmanager
async def cases() -> AsyncGenerator[list[GuardCase]]:
    """Yield the cases, with a server and a fleet for those that need them."""
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(rxd.connect())
        await register(hub, NODES)
        feed = await stack.enter_async_context(hub.feed())
        known = {node.id: node for node in feed.nodes()}
        yield [
            GuardCase(
                "pipeline beside a bare loop of the scripts",
                lambda: pipeline(hub.board(next(names))),
                lambda: bare_loop(hub.board(next(names))),
            ),
            GuardCase(
                "pipeline on a MemoryBoard beside asyncio.Queue",
                lambda: pipeline(rxd.MemoryBoard(next(names))),
                queue_workers,
            ),
            GuardCase(
                "submit beside its bare script",
                lambda: ready_made(hub.board(next(names))),
                lambda: bare_submit(hub.board(next(names))),
            ),
            GuardCase("map_async beside create_task", mapped, created),
            GuardCase(
                "batch beside RxPY's", batched(lambda: ops.batch(100, 1.0)), batched(rxpy_batch)
            ),
            GuardCase("feed.get beside dict.get", reading(feed.get), reading(known.get)),
            GuardCase("shared memory beside multiprocessing.Queue", shared, process_queue),
        ]
