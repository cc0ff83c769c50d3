"""The end of ``rxdispatch worker``, and its errors for unusable modules and handlers."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import pytest

import rxdispatch as rxd
from tests.cli.command import LIMIT
from tests.cli.test_worker import Worker, environment, has, line_of
from tests.servers import valkey_server

HANDLERS: Final = """
import asyncio, threading, time

def log(line):
    with open("log", "a") as file:
        file.write(f"{line}\\n")

def thread(task):
    log(task.payload)
    if task.payload == "hang":
        time.sleep(900)

async def to_thread(task):
    log(task.payload)
    if task.payload == "hang":
        await asyncio.to_thread(time.sleep, 900)

async def own(task):
    log(task.payload)
    if task.payload == "hang":
        threading.Thread(target=time.sleep, args=(900,)).start()
        raise ValueError("x")

async def quick(task):
    log(task.payload)

def generator(task):
    yield task

def two(context, task):
    pass
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with modules, and an empty log."""
    (tmp_path / "handlers.py").write_text(HANDLERS)
    (tmp_path / "broken.py").write_text("def fail():\n    raise OSError('two\\nlines')\nfail()\n")
    (tmp_path / "leaves.py").write_text("raise SystemExit\n")
    (tmp_path / "misses.py").write_text("import nowhere.inner\n")
    (tmp_path / "log").touch()
    return tmp_path


@pytest.mark.parametrize("name", ["thread", "to_thread", "own"])
@pytest.mark.parametrize("how", ["--max-tasks", "SIGTERM"])
async def test_a_hung_thread_does_not_keep_the_process(folder: Path, name: str, how: str) -> None:
    """The attempt that hangs ends with its timeout, and the process with exit code 0."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("jobs")
        await board.submit(rxd.Task("hang", timeout=0.3, max_attempts=1))
        await board.submit([rxd.Task(1), rxd.Task(2)])
        options: tuple[Any, ...] = ("--max-tasks", 3) if how == "--max-tasks" else ()
        with Worker(
            *(folder, f"handlers:{name}", "--board", "jobs", "--url", server.target.safe),
            *("--grace", 5, *options),
            fails=True,
        ) as worker:
            await has(folder, 3)
            await board.join()
            started = time.monotonic()
            if not options:
                worker.process.send_signal(signal.SIGTERM)
            err = await worker.over()
        assert 0 == worker.process.returncode
        assert err.endswith("2 done, 0 retried, 1 dead, 0 lost.\n"), err
        assert time.monotonic() - started < LIMIT / 2


async def test_verbose_says_each_task(folder: Path) -> None:
    """A line has the outcome of the task and the time of its handler."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        await hub.board("jobs").submit([rxd.Task(n, id=f"t{n}\x1b[2J") for n in range(3)])
        with Worker(
            *(folder, "handlers:quick", "--board", "jobs", "--url", server.target.safe),
            *("--max-tasks", 3, "-v"),
        ) as worker:
            err = await worker.over()
        lines = [line[20:] for line in err.splitlines() if " done t" in line]
        assert [f"done t{n}\\x1b[2J in 0.000 s" for n in range(3)] == [
            line[: line.index(" in ")] + " in 0.000 s" for line in lines
        ]
        assert "\x1b" not in err


@pytest.mark.parametrize(
    ("spec", "message", "traceback"),
    [
        ("broken:a", "module broken must import (OSError: two lines)", True),
        ("leaves:a", "module leaves must import (SystemExit)", True),
        ("misses:a", "module misses must import (ModuleNotFoundError: No module named", True),
        ("nowhere.inner:a", "module nowhere.inner must import (ModuleNotFoundError: ", False),
        ("handlers:generator", "handler must not be a generator function", False),
        ("handlers:two", "handler must take 1 argument (task), got 'two(context, task)'", False),
    ],
)
def test_what_cannot_be_used(folder: Path, spec: str, message: str, traceback: bool) -> None:
    """One sentence comes at the end, after the module's own part of a traceback."""
    done = subprocess.run(
        line_of((spec, "--board", "jobs", "--url", "redis://h")),
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert 2 == done.returncode
    *before, last = done.stderr.splitlines()
    assert last.startswith(f"Error: {message}"), done.stderr
    assert traceback == bool(before), done.stderr
    if spec == "broken:a":
        assert ["Traceback (most recent call last):", "broken.py"] == [
            before[0],
            Path(before[1].split('"')[1]).name,
        ]
        assert "    raise OSError('two\\nlines')" in before


@pytest.mark.parametrize(
    ("setup", "shown"),
    [
        ("import logging; logging.basicConfig(format='mine %(message)s')", "mine attempt_failed"),
        ("import logging as l; l.getLogger('rxdispatch').addHandler(l.NullHandler())", ""),
        (
            (
                "import sys, structlog\nstructlog.configure(logger_factory=structlog."
                "PrintLoggerFactory(sys.stderr), processors=[structlog.processors.JSONRenderer()])"
            ),
            '"event": "attempt_failed"',
        ),
    ],
)
async def test_an_application_that_configures_logging_keeps_it(
    folder: Path, setup: str, shown: str
) -> None:
    """Log entries go only where the application wants them."""
    (folder / "mine.py").write_text(f"{setup}\nasync def fail(task):\n    raise ValueError('x')\n")
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        await hub.board("jobs").submit(rxd.Task(1, max_attempts=1))
        with Worker(
            *(folder, "mine:fail", "--board", "jobs", "--url", server.target.safe),
            *("--max-tasks", 1),
            fails=bool(shown),
        ) as worker:
            err = await worker.over()
    assert shown in err
    assert bool(shown) == err.count("attempt_failed")
    assert " WARNING " not in err


def test_the_wait_for_threads_is_bounded(folder: Path) -> None:
    """A hanging thread may hold the lock of a stream; the exit code is still the same."""
    program = (
        "import sys, threading, time\n"
        "from rxdispatch.cli.leaving import leave_in_time\n"
        "threading.Thread(target=time.sleep, args=(900,)).start()\n"
        "print('said', end='')\n"
        "leave_in_time(7)\n"
        "sys.exit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (7, "said", "") == (done.returncode, done.stdout, done.stderr)
