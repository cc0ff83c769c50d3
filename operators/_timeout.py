"""A timeout that can be told apart from a ``TimeoutError`` raised by the work itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from rxdispatch.errors import ItemTimeoutError

__all__ = ["run_with_timeout"]


async def run_with_timeout(
    work: Awaitable[Any], item: Any, limit: float, spent: float = 0.0
) -> Any:
    """
    Await *work* for at most *limit* seconds.

    Args:
        work: What to await.
        item: What the error is about; the error keeps it.
        limit: Seconds.
        spent: Seconds of them that have passed already.

    Raises:
        ItemTimeoutError: If it takes longer. A ``TimeoutError`` that *work* raises passes through.
    """
    scope = asyncio.timeout(max(0.0, limit - spent))
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            raise ItemTimeoutError(limit, item, repr(item)) from error
        raise
