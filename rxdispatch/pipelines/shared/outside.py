"""Tells a cancellation from outside apart from an error of the user's function."""

from __future__ import annotations

import asyncio

__all__ = ["is_from_outside"]


def is_from_outside(error: BaseException) -> bool:
    """
    Whether *error* comes from the loop or a cancellation, and not from the user's function.

    A ``CancelledError`` or ``GeneratorExit`` that the function itself raises is its failure.
    """
    task = asyncio.current_task()
    if isinstance(error, GeneratorExit):
        return task is None  # the coroutine is being discarded
    return isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling() > 0
