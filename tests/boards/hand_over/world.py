"""One state of a board with its workers, and of everything under way between them.

A claim is named by the number of its range and its task, so a token needs no number of its own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

__all__ = ["Claim", "Hold", "Message", "Task", "Token", "Worker", "World"]

Token = tuple[int, int]
"""A task, and the number of the range in which it was claimed."""


class Task(NamedTuple):
    """What the board knows of a task.

    ``state`` is "new", "ready", "claimed" or "ended". ``lease`` is "asked" for what a claim got,
    "handed", or "confirmed" for what was handed over and whose handler has started.
    """

    state: str = "new"
    number: int = 0
    holder: int = -1
    lease: str = ""
    lapsed: bool = False
    begun: bool = False
    crashes: int = 0
    killer: bool = False

    @property
    def token(self) -> int:
        """Return the number of the range, or -1."""
        return self.number if self.state == "claimed" else -1


class Hold(NamedTuple):
    """A task that a worker has read.

    ``stage`` is "read", "running", or "doubtful" for a handler that ran while its worker was
    frozen. An old one may have lapsed.
    """

    task: int
    number: int
    stage: str = "read"
    old: bool = False


class Message(NamedTuple):
    """A delivery, or an announcement if it has no number."""

    number: int = 0
    before: int = 0
    tasks: tuple[int, ...] = ()
    room: int = 0
    old: bool = False


class Claim(NamedTuple):
    """A claim under way, and its reply once the script has run."""

    limit: int
    read: int
    done: bool = False
    later: tuple[Token, ...] = ()
    got: tuple[Token, ...] = ()
    upto: int = 0
    room: int = 0
    old: bool = False


class Worker(NamedTuple):
    """A worker, what the board knows of its inbox, and what is under way to it.

    ``life`` is "live", "frozen", "dead", "leaving" (it reads no more) or "left".
    """

    life: str = "live"
    listens: bool = True
    # On the board. What a claim got whose reply was lost goes back at the next claim.
    room: int = 0
    listed: tuple[int, ...] = ()
    last: int = 0
    unread: tuple[Token, ...] = ()
    # In the worker.
    read: int = 0
    seen: tuple[int, ...] = ()
    holds: tuple[Hold, ...] = ()
    must_claim: bool = True
    parked: int = 0
    # Under way.
    queue: tuple[Message, ...] = ()
    claim: Claim | None = None


class World(NamedTuple):
    """One state of everything."""

    tasks: tuple[Task, ...]
    workers: tuple[Worker, ...]
    last: int = 0
    faults: int = 0
    kills: int = 0
    wrong: str = ""

    def with_worker(self, at: int, worker: Worker) -> World:
        """Return this state with another worker at a place."""
        return self._replace(workers=(*self.workers[:at], worker, *self.workers[at + 1 :]))

    def with_tasks(self, which: Iterable[int], **changes: Any) -> World:
        """Return this state with changes of some tasks."""
        tasks = list(self.tasks)
        for i in which:
            tasks[i] = tasks[i]._replace(**changes)
        return self._replace(tasks=tuple(tasks))

    def ready(self) -> list[int]:
        """Return the tasks that are ready."""
        return [i for i, task in enumerate(self.tasks) if task.state == "ready"]

    def held_by(self, at: int) -> list[int]:
        """Return the tasks that a worker holds, as the board knows it."""
        return [i for i, task in enumerate(self.tasks) if task.holder == at]
