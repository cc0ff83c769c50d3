"""``rxdispatch worker`` against real servers, in processes that are stopped and killed."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pytest

import rxdispatch as rxd
from tests.cli.command import LIMIT, ROOT, Command
from tests.servers import valkey_server, wait_until

HANDLERS: Final = """
import asyncio, os, time
from pathlib import Path

def log(line):
    with open("log", "a") as file:
        file.write(f"{line}\\n")

async def note(task):
    log(task.payload)

def plain(task):
    log(task.payload)

async def fail(task):
    raise ValueError("no\\nway")

async def gated(task):
    log(task.payload)
    while not Path("go").exists():
        await asyncio.sleep(0.01)
    log(f"end {task.payload}")

async def stuck(task):
    log(task.payload)
    await asyncio.sleep(900)

def busy(task):
    log(task.payload)
    time.sleep(900)

class Methods:
    async def note(self, task):
        log(task.payload)

methods = Methods()
number = 3
"""


STAGES: Final = """
import asyncio
import rxdispatch as rxd
from handlers import log

async def begin(n):
    return n

async def enrich(n):
    await asyncio.sleep(0.02)
    log(f"enriched {n}")
    return n

async def store(n):
    log(f"stored {n}")

shop = rxd.Pipeline(
    rxd.stage(begin),
    rxd.stage(enrich, board="orders", max_concurrent=4),
    rxd.stage(store, board="store"),
)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a module of handlers, two that do not import, and an empty log."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "stages.py").write_text(STAGES)
    (tmp_path / "broken.py").write_text("raise OSError('two\\nlines')\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit\n")
    (tmp_path / "log").touch()
    return tmp_path


def line_of(arguments: Sequence[object]) -> list[str]:
    """Return the command line."""
    return [sys.executable, "-m", "rxdispatch.cli", "worker", *map(str, arguments)]


def environment() -> dict[str, str]:
    """Return an environment without a server."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    found = {**os.environ, "PYTHONPATH": path}
    found.pop("RXDISPATCH_URL", None)
    return found


class Worker(Command):
    """The running command in *folder*; with *fails*, its handlers fail."""

    def __init__(self, folder: Path, *arguments: object, fails: bool = False) -> None:
        self.fails = fails
        self.process = subprocess.Popen(
            line_of(arguments),
            cwd=folder,
            env=environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._family: set[int] = set()

    async def over(self) -> str:
        """Wait for the end; return what the command printed."""
        out, err = await asyncio.to_thread(self.end)
        assert "" == out
        assert self.fails == ("Traceback" in err), err
        return err


async def has(path: Path, lines: int) -> list[str]:
    """Wait until the log in *path* has *lines* lines; return all of them."""
    await asyncio.to_thread(wait_until, lambda: len(read(path)) >= lines, LIMIT)
    return read(path)


def read(path: Path) -> list[str]:
    """Return the lines of the log."""
    return (path / "log").read_text().splitlines()


@pytest.mark.parametrize("name", ["note", "plain", "methods.note"])
async def test_max_tasks(folder: Path, name: str) -> None:
    """The worker settles exactly that many, with any kind of handler, and releases the others."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        await board.submit(rxd.Task(n) for n in range(100))
        url = server.target.safe
        spec = f"handlers:{name}"
        with Worker(folder, spec, "--board", "jobs", "--url", url, "--max-tasks", 42) as worker:
            err = await worker.over()
        assert 0 == worker.process.returncode
        assert err.startswith(f"Running {spec} for board 'jobs' on {url}.\n"), err
        assert err.endswith("\n42 done, 0 retried, 0 dead, 0 lost.\n")
        assert 42 == len(read(folder)) == len(set(read(folder)))
        counts = await board.counts()
        assert rxd.Counts(0, 58, 0, 42, 0) == counts


async def test_failures(folder: Path) -> None:
    """Failed tasks are retried or dead, and ``--verbose`` prints a line for each."""
    async with valkey_server() as server, rxd.connect(server.target.safe, namespace="n") as hub:
        board = hub.board("jobs")
        await board.submit([rxd.Task(1, id="a", max_attempts=1), rxd.Task(1, id="b")])
        with Worker(
            *(folder, "handlers:fail", "--board", "jobs", "--url", server.target.safe),
            *("--namespace", "n", "--max-tasks", 2, "-v"),
            fails=True,
        ) as worker:
            err = await worker.over()
        assert 0 == worker.process.returncode
        day = r"\n\d{4}-\d\d-\d\d \d\d:\d\d:\d\d "
        for line in ("dead a", "retry b"):
            assert re.search(rf"{day}{line} in \d+\.\d{{3}} s: ValueError: no way\n", err), err
        for task in "ab":
            assert 1 == len(re.findall(f"{day}WARNING attempt_failed board=jobs task={task} ", err))
        assert 2 == err.count('    raise ValueError("no\\nway")\nValueError: no\nway\n'), err
        assert err.endswith("\n0 done, 1 retried, 1 dead, 0 lost.\n")


async def test_sigterm_finishes_what_runs(folder: Path) -> None:
    """Running tasks finish, the others are released, and the exit code is 0."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        await board.submit(rxd.Task(n) for n in range(50))
        with Worker(
            *(folder, "handlers:gated", "--board", "jobs", "--url", server.target.safe),
            *("--max-concurrent", 3, "--grace", LIMIT),
        ) as worker:
            await has(folder, 3)
            worker.process.send_signal(signal.SIGTERM)
            worker.read_until("Finishing running tasks; press Ctrl-C again to abort.")
            (folder / "go").touch()
            err = await worker.over()
        assert 0 == worker.process.returncode
        assert "3 done, 0 retried, 0 dead, 0 lost.\n" == err
        assert 6 == len(read(folder))
        assert rxd.Counts(0, 47, 0, 3, 0) == await board.counts()


@pytest.mark.parametrize("name", ["stuck", "busy"])
async def test_the_grace_ends(folder: Path, name: str) -> None:
    """Tasks that do not end in time are released, even from a thread that cannot be stopped."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        await board.submit(rxd.Task(n) for n in range(5))
        with Worker(
            *(folder, f"handlers:{name}", "--board", "jobs", "--url", server.target.safe),
            *("--max-concurrent", 2, "--grace", 0.1),
        ) as worker:
            await has(folder, 2)
            worker.process.send_signal(signal.SIGINT)
            err = await worker.over()
        assert 0 == worker.process.returncode
        assert "Gave up on tasks that did not end in time; they are given back.\n" in err
        assert rxd.Counts(0, 5, 0, 0, 0) == await board.counts()


@pytest.mark.parametrize("name", ["stuck", "busy"])
async def test_a_second_signal_aborts(folder: Path, name: str) -> None:
    """The exit code is 128 plus the number of the signal, and the claims are released."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        await board.submit(rxd.Task(n) for n in range(5))
        with Worker(
            folder, f"handlers:{name}", "--board", "jobs", "--url", server.target.safe
        ) as worker:
            await has(folder, 5)
            worker.process.send_signal(signal.SIGINT)
            worker.read_until("again to abort")
            worker.process.send_signal(signal.SIGTERM)
            err = await worker.over()
        assert 128 + signal.SIGTERM == worker.process.returncode
        assert "Aborted.\n0 done, 0 retried, 0 dead, 0 lost.\n" == err
        assert rxd.Counts(0, 5, 0, 0, 0) == await board.counts()


async def test_kill_9(folder: Path) -> None:
    """Another worker finishes the tasks of a killed worker, and nothing is lost."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        await board.submit(rxd.Task(n) for n in range(20))
        place = ("--board", "jobs", "--url", server.target.safe, "--lease", 0.5)
        with Worker(folder, "handlers:stuck", *place, "--max-concurrent", 7) as worker:
            held = await has(folder, 7)
            worker.process.kill()
            await worker.over()
        with Worker(folder, "handlers:note", *place, "--max-tasks", 20) as worker:
            await worker.over()
        assert rxd.Counts(0, 0, 0, 20, 0) == await board.counts()
        assert sorted(map(str, range(20))) == sorted(read(folder)[len(held) :])


async def test_in_shared_memory(folder: Path) -> None:
    """The worker uses a board without a server, and SIGTERM ends it while it is idle."""
    name = f"worker-{os.getpid()}"
    with rxd.SharedMemoryBoard[Any].create(name, capacity=100) as board:
        try:
            await board.submit(rxd.Task(n) for n in range(10))
            with Worker(folder, "handlers:note", "--shm", name) as worker:
                await has(folder, 10)
                await board.join()
                worker.process.send_signal(signal.SIGTERM)
                err = await worker.over()
            assert 0 == worker.process.returncode
            assert f"for board '{name}' in shared memory." in err
            assert err.endswith("10 done, 0 retried, 0 dead, 0 lost.\n")
        finally:
            board.unlink()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("handlers",), 2, "handler must be given as module:name, got 'handlers'"),
        (("handlers:",), 2, "handler must be given as module:name, got 'handlers:'"),
        (("hand lers:a",), 2, "handler must be given as module:name, got 'hand lers:a'"),
        (
            ("nowhere:a",),
            2,
            "module nowhere must import (ModuleNotFoundError: No module named 'nowhere')",
        ),
        (("handlers:none",), 2, "handler must be in module handlers, got 'none'"),
        (("handlers:number",), 2, "handler must be callable, got 3"),
        (("handlers:note", "--max-concurrent", "0"), 2, "max-concurrent must be >= 1, got 0"),
        (("handlers:note", "--max-tasks", "0"), 2, "max-tasks must be >= 1, got 0"),
        (("handlers:note", "--lease", "0"), 2, "lease must be a finite number of seconds > 0"),
        (("handlers:note", "--grace", "-1"), 2, "grace must be a finite number of seconds >= 0"),
        (("handlers:note", "--namespace", "{{"), 2, "namespace must have no braces"),
        (("handlers:note", "--shm", "b"), 2, "worker must have one of --board, --shm and --stage"),
        (
            ("handlers:note",),
            1,
            "connect to redis://:***@127.0.0.1:1/0: the server must be reachable (",
        ),
    ],
)
def test_trouble_is_one_sentence(
    folder: Path, arguments: tuple[str, ...], code: int, message: str
) -> None:
    """The exit code is 2 for a user's error and 1 for an unreachable server."""
    url = "redis://:geheim@127.0.0.1:1/0"
    trouble(folder, (*arguments, "--board", "jobs", "--url", url), code, message)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "worker must have one of --board, --shm and --stage"),
        (("--board", "jobs"), "worker must have a server: give --url or set RXDISPATCH_URL"),
        (
            ("--board", "jobs", "--url", "memory://"),
            "worker must have a server that other processes can reach, got 'memory://'",
        ),
        (("--board", "", "--url", "redis://h"), "board must be"),
        (("--shm", "b", "--url", "redis://h"), "--shm must be given without --url"),
        (("--shm", "no such board"), "no such board"),
        (("--stage", "a", "--board", "b"), "worker must have one of --board, --shm and --stage"),
        (("--stage", "a", "--max-tasks", "1"), "--stage must be given without --max-tasks, got 1"),
        (("--stage", "a", "--url", "redis://h"), "pipeline must be a Pipeline, got 'function'"),
    ],
)
def test_where_the_board_is(folder: Path, arguments: tuple[str, ...], message: str) -> None:
    """Exactly one place must be given, and it must exist."""
    trouble(folder, ("handlers:note", *arguments), 2, message)


def trouble(folder: Path, arguments: Sequence[str], code: int, message: str) -> None:
    """Run the command to its end, and check that it prints *message*."""
    done = subprocess.run(
        line_of(arguments),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert code == done.returncode, done.stderr
    assert message in done.stderr
    assert ["Error: "] == [line[:7] for line in done.stderr.splitlines() if "Running" not in line]
    assert "Traceback" not in done.stderr
    assert "geheim" not in done.stderr
    assert "" == done.stdout


async def test_stages_in_processes_of_their_own(folder: Path) -> None:
    """One worker of a stage is killed, one is stopped, and a third one does the rest."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:

        async def begin(n: int) -> int:
            return n

        async with rxd.Pipeline(
            rxd.stage(begin), rxd.stage(begin, name="enrich", board="orders"), boards=hub.board
        ) as pipeline:
            await pipeline.feed(range(120))
        # What the killed worker has handed on is handed on again, perhaps after it was stored.
        store = hub.board("store", remember=600.0)
        await store.claim(0)
        at = ("--url", server.target.safe, "--lease", 0.5)
        with Worker(folder, "stages:shop", "--stage", "enrich", *at) as first:
            await has(folder, 10)
            first.process.kill()
            await asyncio.to_thread(first.end)
        with Worker(folder, "stages:shop", "--stage", "enrich", *at) as second:
            await has(folder, 40)
            second.process.send_signal(signal.SIGTERM)
            said = await second.over()
            assert 0 == second.process.returncode
            assert "Finishing running tasks" in said
            assert "0 retried, 0 dead, 0 lost." in said
        with (
            Worker(folder, "stages:shop", "--stage", "enrich", *at),
            Worker(folder, "stages:shop", "--stage", "store", *at),
        ):
            for board in (hub.board("orders"), store):
                await board.join()
        lines = set(read(folder))
        assert {f"enriched {n}" for n in range(120)} <= lines
        assert {f"stored {n}" for n in range(120)} <= lines
        assert 120 == (await store.counts()).done
