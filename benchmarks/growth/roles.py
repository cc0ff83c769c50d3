# pyright: basic
# The types of redis-py commands are partial.
"""
The other processes of a measurement: listeners, idle workers, a worker, a feed.

Each process prints "ready", answers each line of its standard input with a line of JSON, and ends
when its standard input ends.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import selectors
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any, Self

import psutil

import rxdispatch as rxd
from rxdispatch import operators as ops

__all__ = ["Child", "pipeline"]


class Child:
    """
    A process in one of the roles below, killed at the end of the block.

    Args:
        role: The name of the role.
        arguments: The arguments of the role.
    """

    def __init__(self, role: str, *arguments: object) -> None:
        command = [sys.executable, "-m", "benchmarks.growth.roles", role, *map(str, arguments)]
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    async def ready(self) -> Self:
        """Wait for the process to be ready."""
        if await asyncio.to_thread(self._read) != "ready":
            raise RuntimeError("a process of the benchmark has ended")
        return self

    async def ask(self, *words: object) -> dict[str, float]:
        """Send a line, and return the answer."""
        assert self._process.stdin is not None
        self._process.stdin.write(" ".join(map(str, words)) + "\n")
        self._process.stdin.flush()
        answer: dict[str, float] = json.loads(await asyncio.to_thread(self._read))
        return answer

    def _read(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


def pipeline(board: rxd.Board[str], duration: float, slots: int) -> Any:
    """Return the pipeline of a worker, as a user would write it."""

    async def nothing(_: rxd.Task[str]) -> None:
        pass

    async def wait(_: rxd.Task[str]) -> None:
        await asyncio.sleep(duration)

    handler = wait if duration else nothing
    return board.claims().pipe(ops.execute(handler, max_concurrent=slots), ops.settle(board))


class CallCounter:
    """
    Counts the calls of a board.

    Attributes:
        claims, settles: The number of calls.
    """

    def __init__(self, board: Any) -> None:
        self.claims = self.settles = 0
        engine = board._engine
        self._claim, self._settle = engine.claim, engine.settle
        engine.claim, engine.settle = self.claim, self.settle

    async def claim(self, *args: Any) -> Any:
        """Claim."""
        self.claims += 1
        return await self._claim(*args)

    async def settle(self, settlements: Any) -> Any:
        """Settle."""
        self.settles += 1
        return await self._settle(settlements)


# -- roles -----------------------------------------------------------------------------------


def listen(path: str, channel: str) -> None:
    """Hold connections that only listen; each line says how many there must be."""
    selector = selectors.DefaultSelector()
    selector.register(sys.stdin, selectors.EVENT_READ)
    name = channel.encode()
    listeners = 0
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data is not None:
                key.data.recv(1 << 20)
                continue
            line = sys.stdin.readline()
            if not line:
                return
            while listeners < int(line):
                connection = socket.socket(socket.AF_UNIX)
                connection.connect(path)
                connection.sendall(b"*2\r\n$9\r\nSUBSCRIBE\r\n$%d\r\n%b\r\n" % (len(name), name))
                connection.recv(4096)
                selector.register(connection, selectors.EVENT_READ, connection)
                listeners += 1
            _say(listeners=listeners)


async def work(url: str) -> None:
    """Work on "go board seconds slots", until "stop"; answer with the CPU and the calls."""
    lines = _lines()
    async with rxd.connect(url) as hub:
        running: asyncio.Task[Any] | None = None
        counted: CallCounter | None = None
        print("ready", flush=True)
        while words := (await lines.get()).split():
            if words[0] == "go":
                board = hub.board(words[1])
                counted = CallCounter(board)
                stream = pipeline(board, float(words[2]), int(words[3]))
                running = asyncio.create_task(rxd.run(stream))
            elif words[0] == "stop" and running is not None:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)
            claims, settles = (counted.claims, counted.settles) if counted else (0, 0)
            _say(cpu=time.process_time(), claims=claims, settles=settles)


async def idle(url: str, board: str, count: str) -> None:
    """Run idle workers, each with its own connections; answer with their CPU."""
    lines = _lines()
    async with AsyncExitStack() as stack:
        running: list[asyncio.Task[Any]] = []
        for _ in range(int(count)):
            hub = await stack.enter_async_context(rxd.connect(url))
            running.append(asyncio.create_task(rxd.run(pipeline(hub.board(board), 0, 16))))
        await asyncio.sleep(0.5)
        print("ready", flush=True)
        while await lines.get():
            _say(cpu=time.process_time())
        for task in running:
            task.cancel()


async def follow(url: str, namespace: str) -> None:
    """Run a feed of the fleet; answer with the cost of its start, then with its CPU."""
    lines = _lines()
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=60.0))
    async with rxd.connect(url, namespace="warm", settings=settings) as warm, warm.feed():
        pass
    async with rxd.connect(url, namespace=namespace, settings=settings) as hub:
        print("ready", flush=True)
        await lines.get()
        process = psutil.Process()
        before, cpu, start = process.memory_info().rss, time.process_time(), time.perf_counter()
        async with hub.feed() as feed:
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
            grown = process.memory_info().rss - before
            _say(bytes=grown, cpu=cpu, seconds=seconds, nodes=len(feed.nodes()))
            while await lines.get():
                _say(cpu=time.process_time())


def _lines() -> asyncio.Queue[str]:
    """Return the lines of the standard input; when it ends, the process ends."""
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def read() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(lines.put_nowait, line)
        os._exit(0)

    threading.Thread(target=read, daemon=True).start()
    return lines


def _say(**figures: float) -> None:
    print(json.dumps(figures), flush=True)


def main(role: str, *arguments: str) -> None:
    """Run that role until the standard input ends."""
    # Ctrl-C reaches the parent too, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    if role == "listen":
        listen(*arguments)
    else:
        roles: dict[str, Any] = {"work": work, "idle": idle, "follow": follow}
        asyncio.run(roles[role](*arguments))


if __name__ == "__main__":
    main(*sys.argv[1:])
