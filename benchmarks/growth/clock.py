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
        cores: How many threads run at full speed at once; more share them equally.
    """

    def __init__(self, cores: float = math.inf) -> None:
        self.now = 0.0
        self.events = 0
        self._cores = cores
        self._order = itertools.count()
        self._timers: list[tuple[float, int, Then]] = []
        # Every running burst gets the same share: its end is kept in seconds of work that each
        # has been given since the beginning, so that a change of the share moves none of them.
        self._bursts: list[tuple[float, int, Then]] = []
        self._given: float = 0.0

    def after(self, delay: float, then: Then) -> None:
        """Call *then* in so many seconds."""
        heapq.heappush(self._timers, (self.now + delay, next(self._order), then))

    def burst(self, work: float, then: Then) -> None:
        """Call *then* when a core has worked on it for so many seconds."""
        heapq.heappush(self._bursts, (self._given + work, next(self._order), then))

    def run(self, until: float, most: float = math.inf) -> None:
        """Go on until that time, until nothing is left, or for *most* events."""
        last = self.events + most
        while self.events < last:
            timer = self._timers[0][0] if self._timers else math.inf
            share = min(1.0, self._cores / len(self._bursts)) if self._bursts else 1.0
            ready = math.inf
            if self._bursts:
                ready = self.now + max(0.0, self._bursts[0][0] - self._given) / share
            at = min(timer, ready)
            if at > until or at == math.inf:
                break
            self._given += (at - self.now) * share
            self.now = at
            self.events += 1
            heap = self._timers if timer <= ready else self._bursts
            heapq.heappop(heap)[2]()
        else:
            return
        if until < math.inf:
            share = min(1.0, self._cores / len(self._bursts)) if self._bursts else 1.0
            self._given += (until - self.now) * share
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

        self._clock.burst(work, done)
