"""``retry_or_dead``: the decision whether a failed task is retried or dead."""

from __future__ import annotations

from typing import Any, Literal

from rxdispatch.task import Task

__all__ = ["retry_or_dead"]


def retry_or_dead(
    task: Task[Any], attempt: int, *, crashed: bool = False
) -> Literal["retry", "dead"]:
    """
    Return what follows when an attempt at *task* has failed.

    - If the handler killed the process that it ran in, the task is dead, with reason ``crashed``.
      Another attempt would kill another process.
    - If this was the last of its ``max_attempts``, the task is dead, with reason ``failed``.
    - Otherwise it is retried. The wait comes from the ``Backoff`` of ``execute``, or is the delay
      that ``Claim.retry`` got. ``Backoff.attempts`` does not count here.

    The user can decide otherwise: ``Claim.dead`` ends a task at once, and a function between
    ``execute`` and ``settle`` may change the outcome. ``max_attempts`` limits retries there too.

    The board decides what depends on time. A retry that is written when the ttl is over makes the
    task dead, with reason ``expired``. A lease that lapses is no failed attempt but a crash; after
    more than ``max_crashes`` of them the task is dead, with reason ``crashed``.

    Args:
        task: The task.
        attempt: The number of the failed attempt, from 1.
        crashed: Whether the handler killed the process that it ran in.
    """
    return "dead" if crashed or attempt >= task.max_attempts else "retry"
