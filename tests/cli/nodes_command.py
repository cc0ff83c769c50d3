"""Runs ``rxdispatch nodes`` in a process of its own."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Mapping
from typing import Any

from tests.cli.command import LIMIT, ROOT, Command

__all__ = ["NodesCommand", "read_screen", "run_nodes"]


def _environment(more: Mapping[str, str]) -> dict[str, str]:
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, "COLUMNS": "160", "LINES": "12"}
    environment.pop("RXDISPATCH_URL", None)
    return {**environment, **more}


def _line(arguments: tuple[object, ...]) -> list[str]:
    return [sys.executable, "-m", "rxdispatch.cli", "nodes", *map(str, arguments)]


def run_nodes(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end."""
    return subprocess.run(
        _line(arguments),
        env=_environment(environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )


class NodesCommand(Command):
    """A running command; a context manager that leaves no process behind."""

    def __init__(self, *arguments: object, stdout: int = subprocess.PIPE) -> None:
        self.process = subprocess.Popen(
            _line(arguments),
            env=_environment({"TERM": "xterm-256color"}),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._family: set[int] = set()

    def line(self) -> str:
        """Return the next line of stdout; fail if none comes in time."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.end()[1]
        return line.rstrip("\n")

    def document(self) -> dict[str, Any]:
        """Return the next line of stdout, which must be JSON."""
        found: dict[str, Any] = json.loads(self.line())
        return found


def read_screen(descriptor: int, *wanted: str) -> str:
    """Read from a terminal until all of *wanted* have appeared; return the whole text."""
    deadline = time.monotonic() + LIMIT
    data = b""
    while not all(text.encode() in data for text in wanted):
        assert time.monotonic() < deadline, data.decode(errors="replace")
        if select.select([descriptor], [], [], 0.2)[0]:
            data += os.read(descriptor, 65536)
    return data.decode()
