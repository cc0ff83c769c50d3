"""The decision whether a failed task is retried or dead."""

from __future__ import annotations

from rxdispatch.retry_or_dead import retry_or_dead
from rxdispatch.task import Task


def test_a_task_is_retried_until_its_attempts_are_used_up() -> None:
    """An attempt above the limit counts as the last one too."""
    task = Task("payload", max_attempts=3)
    assert ["retry", "retry", "dead", "dead"] == [retry_or_dead(task, n) for n in (1, 2, 3, 4)]


def test_a_handler_that_killed_its_process_gets_no_other_attempt() -> None:
    """The attempts that remain do not matter."""
    assert "dead" == retry_or_dead(Task("payload", max_attempts=3), 1, crashed=True)
