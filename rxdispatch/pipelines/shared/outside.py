"""Errors that are meant for the task or the loop, and not for what the task works on."""

from __future__ import annotations

import asyncio

__all__ = ["is_from_outside"]


def is_from_outside(error: BaseException) -> bool:
    """
    Whether the loop, or somebody who cancels this task, ends it, and not the user's function.

    A ``CancelledError`` or ``GeneratorExit`` that a function raises by itself is its failure.
    """
    task = asyncio.current_task()
    if isinstance(error, GeneratorExit):
        return task is None  # nobody runs this any more
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
