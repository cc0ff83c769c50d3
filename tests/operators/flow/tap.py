"""A subscriber with a valve, which a test opens for a number of items at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from rxdispatch.clock import LoopScheduler
from rxdispatch.valve import Gate


class Tap(abc.ObserverBase[Any]):
    """Takes as many items as it has room for; keeps the completion as "|", an error as it is."""

    def __init__(self, room: int = 0) -> None:
        self.items: list[Any] = []
        self.room = room
        self.gate = Gate(lambda: self.room, None)
        self.then: Callable[[Any], None] | None = None
        self._loop = asyncio.get_running_loop()

    def on_next(self, value: Any) -> None:
        """Keep an item, then call the hook of the test."""
        self.room -= 1
        self.items.append(value)
        if self.then is not None:
            self.then(value)

    def on_error(self, error: Exception) -> None:
        """Keep the error."""
        self.items.append(error)

    def on_completed(self) -> None:
        """Keep the completion."""
        self.items.append("|")

    def open(self, items: int) -> None:
        """Make room for *items* items."""
        self.room = items
        self.gate.opened()

    def subscribe_to(self, stream: Observable[Any]) -> abc.DisposableBase:
        """Subscribe to *stream* with the valve."""
        return stream.subscribe(self, scheduler=LoopScheduler(self._loop, valve=self.gate))


def dropped(logs: list[Any]) -> int:
    """Count the items that were logged as dropped."""
    return sum(entry["items"] for entry in logs if entry["event"] == "items_dropped")
