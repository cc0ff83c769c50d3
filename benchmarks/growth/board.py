"""A board on one server that does one thing at a time, and who puts tasks there."""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from benchmarks.growth.clock import Clock
from benchmarks.growth.costs import Costs

__all__ = ["KEPT", "US", "Board", "Hint", "submit_at_random"]

KEPT: Final = 60.0
"""Seconds for which the server keeps a reply."""

US: Final = 1e-6

CROWD: Final = 8
"""Listeners above which a wake-up lets them take turns, as in ``prelude.lua``."""


class Hint(NamedTuple):
    """A wake-up: ``r``, ``e`` or ``j``, of how many tasks and to how many listeners."""

    kind: str
    tasks: int = 0
    listeners: int = 0


# What a request does, and what it costs; then what its sender is told.
Request = tuple[Callable[[], float], Callable[[], None]]


class Board:
    """
    One board, and the server that it is on.

    Like the server, it reads what has come from all connections, does it one by one, and then
    answers all of it. Tasks are numbers.

    Args:
        clock: Its time.
        costs: What calls cost.
        wire: Seconds to a client, or back.
        endless: Whether there is always another task waiting.
        lasting: Whether kept replies are let go of at the rate at which they come, as they are
            after the first minute.
        turns: Whether many idle workers take turns at a wake-up, as they do, or all claim at once.

    Attributes:
        hinted: Called with each wake-up, one for each who listens.
        taken: Seconds that each task waited for its claim.
        calls, claims, done: How many there were; *claims* counts the calls.
    """

    def __init__(
        self,
        clock: Clock,
        costs: Costs,
        *,
        wire: float,
        endless: bool = False,
        lasting: bool = False,
        turns: bool = True,
    ) -> None:
        self.costs = costs
        self.wire = wire
        self.hinted: list[Callable[[Hint], None]] = []
        self.taken: list[float] = []
        self.calls = self.claims = self.done = 0
        self._worked = 0.0
        self._round_began = self._round_work = 0.0
        self._clock = clock
        self._endless = endless
        self._turns = turns
        self._expire = costs.expire if lasting else 0.0
        self._numbers = itertools.count()
        self._ready: deque[tuple[int, float]] = deque()
        self._claimed = 0
        self._queue: list[Request] = []
        self._busy = False
        self._told: list[Callable[[], None]] = []

    @property
    def worked(self) -> float:
        """Seconds of CPU."""
        return self._worked + min(self._round_work, self._clock.now - self._round_began)

    # -- calls of clients --------------------------------------------------------------------

    def submit(self, count: int, then: Callable[[], None]) -> None:
        """Add tasks."""
        came = self._clock.now

        def step() -> float:
            empty = not self._ready
            self._ready.extend((next(self._numbers), came) for _ in range(count))
            cost = self.costs.submit.at(count) + self._expire
            if empty:
                listeners = len(self.hinted) if self._crowd() else 0
                cost += self._publish(Hint("r", len(self._ready), listeners))
            return cost

        self._send(step, then)

    def claim(self, limit: int, then: Callable[[list[int]], None]) -> None:
        """Take up to *limit* tasks."""
        got: list[int] = []

        def step() -> float:
            self.claims += 1
            found = len(self._ready)
            now = self._clock.now
            while len(got) < limit:
                if self._ready:
                    number, came = self._ready.popleft()
                    self.taken.append(now - came)
                elif self._endless:
                    number = next(self._numbers)
                else:
                    break
                got.append(number)
            self._claimed += len(got)
            costs = self.costs
            cost = (costs.claim.at(len(got)) if got else costs.nothing) + self._expire
            if found and not self._ready and self._crowd():
                cost += self._publish(Hint("e"))
            return cost

        self._send(step, lambda: then(got))

    def settle(self, count: int, then: Callable[[], None]) -> None:
        """End so many claims."""

        def step() -> float:
            self.done += count
            self._claimed -= count
            cost = self.costs.settle.at(count) + self._expire
            if not (self._ready or self._claimed or self._endless):
                cost += self._publish(Hint("j"))
            return cost

        self._send(step, then)

    # -- the server --------------------------------------------------------------------------

    def _crowd(self) -> bool:
        return self._turns and len(self.hinted) > CROWD

    def _publish(self, hint: Hint) -> float:
        self._told.extend(partial(listener, hint) for listener in self.hinted)
        return self.costs.hint.b * len(self.hinted)

    def _send(self, step: Callable[[], float], then: Callable[[], None]) -> None:
        self._clock.after(self.wire, lambda: self._came((step, then)))

    def _came(self, request: Request) -> None:
        self._queue.append(request)
        if not self._busy:
            self._busy = True
            self._round(asleep=True)

    def _round(self, asleep: bool) -> None:
        requests, self._queue = self._queue, []
        work = sum(step() for step, _ in requests)
        # The calls were measured one by one, each of which woke the server.
        saved = len(requests) - (1 if asleep else 0)
        work = max(0.0, work - saved * self.costs.wake) * US
        self.calls += len(requests)
        self._round_began, self._round_work = self._clock.now, work

        def answer() -> None:
            self._worked += work
            self._round_work = 0.0
            told, self._told = self._told, []
            for then in (*told, *(then for _, then in requests)):
                self._clock.after(self.wire, then)
            if self._queue:
                self._round(asleep=False)
            else:
                self._busy = False

        self._clock.burst(work, answer, self)


def submit_at_random(
    clock: Clock, board: Board, rate: float, rng: random.Random, *, count: int = 1
) -> None:
    """Put *rate* tasks a second on a board, *count* in a call, as a Poisson process."""

    def submit() -> None:
        board.submit(count, lambda: None)
        clock.after(rng.expovariate(rate / count), submit)

    clock.after(rng.expovariate(rate / count), submit)
