"""A timeout that can be told apart from a ``TimeoutError`` of the work itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from rxdispatch.errors import ItemTimeoutError

__all__ = ["run_with_timeout"]


async def run_with_timeout(
    work: Awaitable[Any],
    item: Any,
    limit: float | None,
    spent: float = 0.0,
    *,
    name: str | None = None,
) -> Any:
    """
    Await *work* for at most *limit* seconds, or without a limit if that is None.

    Args:
        work: What to await.
        item: What the error is about; the error keeps it.
        limit: Seconds.
        spent: Seconds of *limit* that have already passed.
        name: The name of *item* in the error, as for :class:`ItemTimeoutError`.

    Raises:
        ItemTimeoutError: If it takes longer. A ``TimeoutError`` that *work* raises passes through.
    """
    if limit is None:
        return await work
    scope = asyncio.timeout(max(0.0, limit - spent))
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            raise ItemTimeoutError(limit, item, name) from error
        raise
