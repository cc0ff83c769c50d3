"""Rules for the arguments of a board's methods."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from typing import Any

from rxdispatch.boards.task_codec import check_id
from rxdispatch.claim import Claim, Settlement
from rxdispatch.errors import ConfigError
from rxdispatch.task import Task

__all__ = [
    "check_claim",
    "check_settlement",
    "id_list",
    "task_iterable",
    "worker_label",
]

_HOST = platform.node()[:100]


def task_iterable(tasks: Task[Any] | Iterable[Task[Any]]) -> Iterable[Task[Any]]:
    """Return *tasks* as an iterable; its items are checked when they are encoded."""
    if isinstance(tasks, Task):
        return (tasks,)
    if isinstance(tasks, (str, bytes, bytearray, Mapping)):
        # These are iterable, but the caller meant them as a payload.
        rule = "tasks must be a Task or an iterable of Tasks; a payload goes into rxdispatch.Task"
        raise ConfigError(f"{rule}, as Task(payload)", tasks)
    if not isinstance(tasks, Iterable):
        raise ConfigError("tasks must be a Task or an iterable of Tasks", tasks)
    return tasks


def worker_label(worker: str | None) -> str:
    """Return the label of a worker; the host and process id if *worker* is None."""
    if worker is None:
        return f"{_HOST}-{os.getpid()}"
    if not isinstance(worker, str) or len(worker) > 200:
        raise ConfigError("worker must be a str of at most 200 characters", worker)
    return worker


def id_list(ids: str | Iterable[str]) -> list[str]:
    """Return one id, or an iterable of ids, as a list."""
    if not isinstance(ids, Iterable):
        raise ConfigError("ids must be a str or an iterable of str", ids)
    found = [ids] if isinstance(ids, str) else list(ids)
    for task_id in found:
        check_id(task_id)
    return found


def check_settlement(settlement: Any, board: str) -> None:
    """Raise ConfigError unless *settlement* ends a claim of the board named *board*."""
    if settlement.__class__ is not Settlement:
        raise ConfigError(
            "settlements must come from done(), retry(), dead() or release() of a claim", settlement
        )
    owner = settlement.claim._origin.board
    if owner.name != board:
        raise ConfigError(f"settlements must be of claims of board {board!r}", owner.name)


def check_claim(claim: Any, board: str) -> None:
    """Raise ConfigError unless *claim* is one of the board named *board*."""
    if not isinstance(claim, Claim):
        raise ConfigError("claims must come from a board", claim)
    owner: Any = claim._origin.board
    if owner.name != board:
        raise ConfigError(f"claims must be of board {board!r}", owner.name)
