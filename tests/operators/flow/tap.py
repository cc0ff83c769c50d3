"""A subscriber with a valve that a test opens for so many items at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable, abc

from rxdispatch.clock import LoopScheduler
from rxdispatch.valve import Gate
from tests.operators.flow.probes import Log


class Tap(Log):
    """Takes as many items as it was opened for; keeps them like ``Log``."""

    def __init__(self, room: int = 0) -> None:
        super().__init__()
        self.room = room
        self.gate = Gate(lambda: self.room, None)
        self.then: Callable[[Any], None] | None = None

    def on_next(self, value: Any) -> None:
        """Keep an item, and do what the test wants to happen then."""
        self.room -= 1
        super().on_next(value)
        if self.then is not None:
            self.then(value)

    def open(self, items: int) -> None:
        """Make room for so many items."""
        self.room = items
        self.gate.opened()

    def subscribe_to(self, stream: Observable[Any]) -> abc.DisposableBase:
        """Subscribe with its valve."""
        return stream.subscribe(self, scheduler=LoopScheduler(self.loop, valve=self.gate))


def dropped(logs: list[Any]) -> int:
    """Count what was logged as dropped."""
    return sum(entry["items"] for entry in logs if entry["event"] == "items_dropped")
