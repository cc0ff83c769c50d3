"""Virtual time, cores that threads share, and threads that do one thing after the other."""

from __future__ import annotations

import heapq
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any

__all__ = ["Clock", "Thread"]

Then = Callable[[], Any]


class Clock:
    """
    The events of a simulation in the order of their time.

    Args:
        cores: How many threads run at once; more take turns of *turn*. A part of a core is a
            slower one.
        turn: Seconds.
    """

    def __init__(self, cores: float = math.inf, *, turn: float = 0.003) -> None:
        self.now = 0.0
        self.events = 0
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Then]] = []
        self._free: float = math.ceil(cores) if cores < math.inf else cores
        self._speed = 1.0 if cores == math.inf else cores / math.ceil(cores)
        self._turn = turn if cores < math.inf else math.inf
        self._waiting: deque[tuple[object, float, Then]] = deque()
        # Who has a core at the moment, and seconds of work that are left of its turn.
        self._holder: object = None
        self._left = 0.0

    def after(self, delay: float, then: Then) -> None:
        """Call *then* in so many seconds."""
        heapq.heappush(self._timers, (self.now + delay, next(self._order), then))

    def burst(self, work: float, then: Then, owner: object) -> None:
        """Call *then* when a core has worked on it for so many seconds, for *owner*."""
        if self._holder is owner and self._left > 0:
            # It goes on with its next thing within its turn.
            self._holder = None
            self._on_core(owner, work, then, self._left)
        elif self._free >= 1:
            self._free -= 1
            self._on_core(owner, work, then, self._turn)
        else:
            self._waiting.append((owner, work, then))

    def _on_core(self, owner: object, work: float, then: Then, turn: float) -> None:
        some = min(work, turn)

        def over() -> None:
            if work > turn:
                self._waiting.append((owner, work - some, then))
            else:
                self._holder, self._left = owner, turn - some
                then()
                if self._holder is None:
                    return
                self._holder = None
            if self._waiting:
                self._on_core(*self._waiting.popleft(), self._turn)
            else:
                self._free += 1

        self.after(some / self._speed, over)

    def run(self, until: float, most: float = math.inf) -> None:
        """Go on until that time, until nothing is left, or for *most* events."""
        last = self.events + most
        while self._timers and self._timers[0][0] <= until:
            if self.events >= last:
                return
            self.events += 1
            self.now, _, then = heapq.heappop(self._timers)
            then()
        if until < math.inf:
            self.now = until


class Thread:
    """
    Does one thing after the other, in the order in which they came.

    Attributes:
        worked: Seconds of CPU.
    """

    def __init__(self, clock: Clock) -> None:
        self.worked = 0.0
        self._clock = clock
        self._queue: deque[tuple[float, Then]] = deque()
        self._busy = False

    def do(self, work: float, then: Then) -> None:
        """Work for so many seconds, then call *then*."""
        self._queue.append((work, then))
        if not self._busy:
            self._busy = True
            self._next()

    def _next(self) -> None:
        work, then = self._queue.popleft()

        def done() -> None:
            self.worked += work
            then()
            if self._queue:
                self._next()
            else:
                self._busy = False

        self._clock.burst(work, done, self)
