"""A subscriber that remembers the end like an item, and short names for the testing kit."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from reactivex import Observable, abc
from reactivex import operators as rx

from rxdispatch.streams import run
from rxdispatch.testing import Supply

T = TypeVar("T")


class Log(abc.ObserverBase[Any]):
    """A subscriber that keeps its items, with the time; "|" is the completion."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.got: list[Any] = []

    def on_next(self, value: Any) -> None:
        """Keep an item."""
        self.got.append((self.loop.time(), value))

    def on_error(self, error: Exception) -> None:
        """Keep the error."""
        self.got.append((self.loop.time(), error))

    def on_completed(self) -> None:
        """Keep the completion."""
        self.got.append((self.loop.time(), "|"))

    @property
    def items(self) -> list[Any]:
        """The items, without the times."""
        return [item for _, item in self.got]


def to_list(stream: Observable[Any]) -> Coroutine[Any, Any, Any]:
    """Run *stream* to its end and return its items."""
    return run(stream.pipe(rx.to_list()))


class Paced(Supply[T]):
    """Emits the items of an iterable as there is room, and counts them."""

    def stream(self) -> Observable[T]:
        """Return the source as a stream."""
        return self


class Work:
    """A handler that sleeps as long as it is told and knows how many of it were at work."""

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
    """Return *item*; a handler without work."""
    return item


def one_key(_: Any) -> int:
    """Give all items the same key."""
    return 0
