"""One item on its way through a bounded map, and the lanes that keep order per key."""

from __future__ import annotations

from collections import deque
from collections.abc import Hashable
from contextvars import Context
from typing import Any, Final

__all__ = ["NO_KEY", "Flight", "Lanes"]

NO_KEY: Final[Any] = object()


class Flight:
    """
    One item on its way.

    Attributes:
        context: What it runs in and is emitted in; None for the context at hand.
        deadline: When its time is up, on the loop's clock.
        expired: Whether its time was up and its work was cut short.
        landed: Whether its work is over.
        known: Whether its outcome is known.
        passed: Whether its outcome has left the operator.
        skipped: Whether its outcome is to be nothing at all.
        started: When its work began, where a limit wants to know.
        value: Its outcome otherwise.
    """

    __slots__ = (
        "context",
        "deadline",
        "expired",
        "item",
        "key",
        "known",
        "landed",
        "passed",
        "skipped",
        "started",
        "value",
    )

    deadline: float
    started: float
    value: Any

    def __init__(self, item: Any, context: Context | None) -> None:
        self.item = item
        self.context = context
        self.key: Hashable = NO_KEY
        self.expired = self.known = self.landed = self.passed = self.skipped = False


class Lanes:
    """One lane a key, in which one flight is at work and the others wait; idle ones go."""

    __slots__ = ("_lanes", "waiting")

    def __init__(self) -> None:
        self._lanes: dict[Hashable, deque[Flight] | None] = {}
        self.waiting = 0

    def enter(self, key: Hashable, flight: Flight) -> bool:
        """Take the lane of *key* and return True; False if it is taken and *flight* waits."""
        if key not in self._lanes:
            # Most keys never see two at once: no deque until one waits.
            self._lanes[key] = None
            flight.key = key
            return True
        flight.key = key
        lane = self._lanes[key]
        if lane is None:
            lane = self._lanes[key] = deque()
        lane.append(flight)
        self.waiting += 1
        return False

    def leave(self, key: Hashable) -> Flight | None:
        """Give up the lane of *key*; returns the flight that takes it over, if any."""
        lane = self._lanes[key]
        if not lane:
            del self._lanes[key]
            return None
        self.waiting -= 1
        return lane.popleft()

    def __len__(self) -> int:
        return len(self._lanes)

    def clear(self) -> None:
        """Forget all."""
        self._lanes.clear()
        self.waiting = 0
