"""A limit in time that tells itself from what it limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

from rxdispatch.errors import ItemTimeoutError

__all__ = ["limited"]


async def limited(work: Awaitable[Any], item: Any, limit: float) -> Any:
    """
    Await *work* for at most *limit* seconds.

    Raises:
        ItemTimeoutError: If it took longer; a ``TimeoutError`` of its own passes as it is.
    """
    scope = asyncio.timeout(limit)
    try:
        async with scope:
            return await work
    except TimeoutError as error:
        if scope.expired():
            raise ItemTimeoutError(limit, item, repr(item)) from error
        raise
