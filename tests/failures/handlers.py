"""The handlers of these tests, in a module that worker processes import quickly."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rxdispatch.task import Task

__all__ = ["in_process", "note"]


def note(path: str, line: str) -> None:
    """Append a line by one write, so that it survives the end of this process."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, line.encode() + b"\n")
    finally:
        os.close(fd)


def in_process(task: Task[Any]) -> str:
    """Append the task's id, then end the process or sleep; ``{"do", "path", "seconds"}``."""
    order = task.payload
    note(order["path"], task.id)
    if order["do"] == "exit":
        # Wait first, so that other tasks are running beside this one.
        time.sleep(order["seconds"])
        os._exit(3)
    time.sleep(order["seconds"])
    return Path(order["path"]).name
