"""Helpers that run a stream to its end, and handlers that count."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from reactivex import Observable
from reactivex import operators as rx

from rxdispatch.streams import run


def to_list(stream: Observable[Any]) -> Coroutine[Any, Any, Any]:
    """Run *stream* to its end and return its items."""
    return run(stream.pipe(rx.to_list()))


class Work:
    """A handler that sleeps for a time given by its item, and counts its concurrent calls."""

    def __init__(self) -> None:
        self.started: list[Any] = []
        self.ended: list[Any] = []
        self.cancelled: list[Any] = []
        self.now = 0
        self.most = 0

    async def __call__(self, item: Any) -> Any:
        """Sleep *item* seconds, or one if it is no number."""
        self.started.append(item)
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await asyncio.sleep(item if isinstance(item, (int, float)) else 1)
        except asyncio.CancelledError:
            self.cancelled.append(item)
            raise
        finally:
            self.now -= 1
        self.ended.append(item)
        return item


async def echo(item: Any) -> Any:
    """Return *item*; the handler does no work."""
    return item


def one_key(_: Any) -> int:
    """Give all items the same key."""
    return 0
