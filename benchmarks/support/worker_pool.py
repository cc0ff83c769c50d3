# pyright: basic
"""``WorkerPool``: processes that start before a measurement and drain boards during it."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
import time
from array import array
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any, Final, Self

import attrs

import rxdispatch as rxd
from rxdispatch import operators as ops

__all__ = ["WIDTH", "DrainJob", "DrainShift", "WorkerPool", "numbers_of"]

#: How many handlers run at a time in a process.
WIDTH: Final = 32
_PREFETCH: Final = 256
_CONTEXT: Final = multiprocessing.get_context("spawn")


@attrs.frozen
class DrainJob:
    """
    A board, or the queue, of numbers to drain.

    Attributes:
        board: Its name; ``None`` is the queue of the pool.
        url: The URL of the server; None for a board in shared memory.
        pause: Seconds that a handler sleeps; with 0 it does nothing.
    """

    board: str | None
    url: str | None
    pause: float


@attrs.frozen
class DrainShift:
    """The work of one process: its times, its CPU seconds, and the numbers that it handled."""

    begin: float
    end: float
    cpu: float
    numbers: bytes


class WorkerPool:
    """
    A number of processes that end with the block.

    Args:
        size: The number of processes.

    Attributes:
        queue: A ``multiprocessing.Queue`` that they share.
    """

    def __init__(self, size: int) -> None:
        self.queue: Any = _CONTEXT.Queue()
        self._ends: list[Connection] = []
        self._processes: list[Any] = []
        for _ in range(size):
            ours, theirs = _CONTEXT.Pipe()
            process = _CONTEXT.Process(target=_serve, args=(theirs, self.queue), daemon=True)
            process.start()
            theirs.close()
            self._ends.append(ours)
            self._processes.append(process)

    def drain(self, job: DrainJob, workers: int) -> list[DrainShift]:
        """Make that many processes do a job; no process begins before all are ready."""
        ends = self._ends[:workers]
        for end in ends:
            end.send(job)
        for end in ends:
            end.recv()
        if job.board is None:
            for _ in ends:
                self.queue.put(None)
        for end in ends:
            end.send("go")
        return [end.recv() for end in ends]

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Kill all processes."""
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.join()
        self.queue.cancel_join_thread()
        self.queue.close()


def _serve(end: Connection, queue: Any) -> None:
    # Ctrl-C reaches all processes of a terminal; the parent ends this one.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_follow_parent, daemon=True).start()
    while True:
        try:
            job = end.recv()
            end.send(asyncio.run(_work(job, end, queue)))
        except (EOFError, OSError):
            return


def _follow_parent() -> None:
    """End with the parent; otherwise a board would wait for its server to return."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


async def _work(job: DrainJob, end: Connection, queue: Any) -> DrainShift:
    numbers = array("I")

    async def handle(number: int) -> None:
        numbers.append(number)
        if job.pause:
            await asyncio.sleep(job.pause)

    async with _opened(job, queue, handle) as drain:
        end.send("ready")
        end.recv()
        begin, cpu = time.monotonic(), time.process_time()
        await drain()
        return DrainShift(begin, time.monotonic(), time.process_time() - cpu, numbers.tobytes())


@asynccontextmanager
async def _opened(
    job: DrainJob, queue: Any, handle: Callable[[int], Awaitable[None]]
) -> AsyncIterator[Callable[[], Awaitable[None]]]:
    if job.board is None:
        yield lambda: _drain_queue(queue, handle, waves=bool(job.pause))
    elif job.url is None:
        with rxd.SharedMemoryBoard[int].attach(job.board) as board:
            yield lambda: _drain_board(board, handle)
    else:
        async with rxd.connect(job.url) as hub:
            on_server = hub.board(job.board, payload=int)
            yield lambda: _drain_board(on_server, handle)


async def _drain_board(board: rxd.Board[int], handle: Callable[[int], Awaitable[None]]) -> None:
    async def handler(task: rxd.Task[int]) -> None:
        await handle(task.payload)

    await rxd.run(
        board.claims(prefetch=_PREFETCH, until="idle").pipe(
            ops.execute(handler, max_concurrent=WIDTH), ops.settle(board)
        )
    )


async def _drain_queue(
    queue: Any, handle: Callable[[int], Awaitable[None]], *, waves: bool
) -> None:
    """Get items one by one, or in waves, so that handlers sleep at the same time."""
    ended = False
    while not ended:
        wave: list[int] = []
        while len(wave) < (WIDTH if waves else 1) and not ended:
            item = queue.get()
            if item is None:
                ended = True
            else:
                wave.append(item)
        if waves:
            await asyncio.gather(*(handle(number) for number in wave))
        else:
            for number in wave:
                await handle(number)


def numbers_of(shifts: Sequence[DrainShift]) -> list[int]:
    """Return all handled numbers."""
    return [number for shift in shifts for number in array("I", shift.numbers)]
