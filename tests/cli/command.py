"""Runs the real command in a process of its own, and makes trees of files for it."""

from __future__ import annotations

import ast
import json
import os
import sqlite3
import subprocess
import sys
import time
import warnings
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import psutil

from tests.servers import alive, wait_until

__all__ = ["Command", "expected", "long_tree", "part", "run", "stalled"]

ROOT = Path(__file__).parents[2]

#: How many seconds any run in these tests may take on a busy machine.
LIMIT = 60.0


def _environment() -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "100"}
    environment.pop("RXDISPATCH_URL", None)
    return environment


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run ``rxdispatch demo`` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "rxdispatch.cli", "demo", *map(str, arguments)],
        env=_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


class Command:
    """A running ``rxdispatch demo``; a context manager that leaves no process behind."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rxdispatch.cli", "demo", *map(str, arguments)],
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._family: set[int] = set()

    def family(self, *, again: bool = True) -> set[int]:
        """Return the processes that it has started: workers, their helper and the server."""
        if again:
            children = psutil.Process(self.process.pid).children(recursive=True)
            self._family |= {child.pid for child in children}
        return self._family

    def read_until(self, text: str) -> None:
        """Wait until it has printed *text*."""
        assert self.process.stderr is not None
        while text not in (line := self.process.stderr.readline()):
            assert line, "the command ended before it printed the text"

    def end(self) -> tuple[str, str]:
        """Wait until it and its children have ended; return stdout and stderr."""
        streams = self.process.communicate(timeout=LIMIT)
        wait_until(lambda: not any(alive(pid) for pid in self._family))
        return streams

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()
        for pid in filter(alive, self._family):
            psutil.Process(pid).kill()


@contextmanager
def stalled(command: Command, data_dir: Path) -> Generator[int]:
    """
    Let the run count a few files, then block the writes of workers, so that it stops half-way.

    By then, more than the four files are counted that two workers may have ahead of the board.

    Yields the number of counted files.
    """
    # Do not open it before it is in WAL mode, as the change of the mode locks the whole file.
    wait_until((data_dir / "demo.sqlite3-wal").exists, LIMIT)
    db = sqlite3.connect(data_dir / "demo.sqlite3", timeout=LIMIT, isolation_level=None)
    try:
        while True:
            assert command.process.poll() is None, command.end()
            db.execute("BEGIN IMMEDIATE")
            if (rows := _rows(db)) >= 8:
                break
            db.execute("ROLLBACK")
            time.sleep(0.002)
        _wait_for_a_blocked_worker(command)
        yield rows
    finally:
        db.close()


def _wait_for_a_blocked_worker(command: Command) -> None:
    """
    Wait until a worker tries to write, so that a task is running.

    On a busy machine, no task may run for a moment: those that ran have ended, and the run has not
    noticed. A worker that waits for the lock sleeps again and again, unlike one that is idle.
    """
    before = {pid: _sleeps(pid) for pid in command.family()}
    wait_until(lambda: any(_sleeps(pid) > before[pid] + 12 for pid in before), LIMIT)


def _sleeps(pid: int) -> int:
    try:
        return int(psutil.Process(pid).num_ctx_switches().voluntary)
    except psutil.NoSuchProcess:
        return 0


def _rows(db: sqlite3.Connection) -> int:
    try:
        return int(db.execute("SELECT count(*) FROM counts").fetchone()[0])
    except sqlite3.OperationalError:
        return 0  # the table does not exist yet


def long_tree(root: Path) -> None:
    """Write 400 files, one of them broken: a busy machine cannot count all before the test acts."""
    root.mkdir()
    body = "def f(a, b=[1, 2, 3]):\n    return [a + b[0] * c for c in range(a)]\n"
    for i in range(400):
        (root / f"m{i:03}.py").write_text(body * (10 + i // 8) + "class A: pass\n")
    (root / "m001.py").write_text("def broken(:\n")


def expected(root: Path) -> dict[str, Any]:
    """Count a tree directly; the keys are those of the JSON document."""
    totals = {"files": 0, "counted": 0, "dead": 0, "functions": 0, "classes": 0, "lines": 0}
    reasons: dict[str, int] = {}
    for path in sorted(root.rglob("*.py")):
        if path.is_fifo() or path.is_dir():
            continue
        totals["files"] += 1
        try:
            source = path.read_bytes()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                nodes = list(ast.walk(ast.parse(source)))
        except Exception as error:
            totals["dead"] += 1
            reason = type(error).__name__
            reasons[reason] = reasons.get(reason, 0) + 1
            continue
        totals["counted"] += 1
        functions = (ast.FunctionDef, ast.AsyncFunctionDef)
        totals["functions"] += sum(isinstance(node, functions) for node in nodes)
        totals["classes"] += sum(isinstance(node, ast.ClassDef) for node in nodes)
        totals["lines"] += len(source.splitlines())
    return {**totals, "dead_by_reason": reasons, "remaining": 0, "state": "complete"}


def part(document: str, like: Mapping[str, Any]) -> dict[str, Any]:
    """Return those entries of a JSON document that *like* has too."""
    found: dict[str, Any] = json.loads(document)
    return {name: found[name] for name in like}
