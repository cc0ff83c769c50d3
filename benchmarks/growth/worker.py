"""A worker: ``claims | execute | settle`` as those operators decide, without doing it."""

from __future__ import annotations

import random
from collections import deque
from typing import Final

from benchmarks.growth.board import US, Board, Hint
from benchmarks.growth.clock import Clock, Thread
from rxdispatch.boards.redis.hints import FIRST, SPACING
from rxdispatch.operators.tasks._claim import AHEAD, POLL, WINDOW
from rxdispatch.operators.tasks._execution import BURST

__all__ = ["Worker"]

PREFETCH: Final = 1024
COUNT: Final = 256
TIMESPAN: Final = 0.002


class Worker:
    """
    One process of a closed loop.

    Args:
        clock: Its time.
        board: Where it claims.
        rng: For the jitter of its poll.
        slots: Handlers at a time.
        duration: Seconds that a handler waits for something; 0 for one that does nothing.
        thread: Which it shares with other workers of its process; its own by default.

    Attributes:
        finished: What it settled, in order.
    """

    def __init__(
        self,
        clock: Clock,
        board: Board,
        rng: random.Random,
        *,
        slots: int = 16,
        duration: float = 0.0,
        thread: Thread | None = None,
    ) -> None:
        self.thread = thread or Thread(clock)
        self.finished: list[int] = []
        self._clock = clock
        self._board = board
        self._rng = rng
        self._slots = slots
        self._duration = duration
        costs = board.costs
        self._own_claim, self._own_settle = costs.own_claim, costs.own_settle
        self._handler = (costs.own_waiting / 2 if duration else costs.own_handler) * US
        # The claim operator.
        self._claiming = self._promising = self._hinted = False
        self._sweep = True
        self._poll = self._turn = 0
        self._waiting: deque[int] = deque()
        self._out = 0
        self._ahead = self._emitted = self._counted = 0
        self._since = clock.now
        # The execute operator.
        self._queue: deque[int] = deque()
        self._live = 0
        self._stepping = False
        # The settle operator.
        self._batch: list[int] = []
        self._writing = 0
        self._timer = 0
        self._due = False

    def start(self) -> None:
        """Listen, and look for work."""
        self._board.hinted.append(self._heard)
        self._hint()

    # -- claim -------------------------------------------------------------------------------

    def _heard(self, hint: Hint) -> None:
        self.thread.do(self._board.costs.own_hint * US, lambda: self._read(hint))

    def _read(self, hint: Hint) -> None:
        if hint.kind == "j":
            return
        self._turn += 1
        if hint.kind == "r":
            place = self._rng.random() * hint.listeners
            if place < FIRST * hint.tasks:
                self._hint()
            else:
                turn = self._turn
                self._clock.after(place * SPACING, lambda: self._my_turn(turn))

    def _my_turn(self, turn: int) -> None:
        if turn == self._turn:
            self._hint()

    def _hint(self) -> None:
        self._hinted = self._promising = True
        self._advance()

    def _wanted(self) -> int:
        waiting, room = len(self._waiting), self._room()
        if room <= 0 and waiting * 2 > self._ahead:
            return 0
        return min(PREFETCH - self._out, room + self._ahead - waiting)

    def _advance(self) -> None:
        if self._claiming:
            return
        wanted = self._wanted() if self._promising else 0
        if wanted <= 0 and not self._sweep:
            return
        self._sweep = False
        now = self._clock.now
        if now - self._since >= WINDOW:
            taken = self._emitted - self._counted
            self._ahead = max(int(taken / (now - self._since) * AHEAD), self._ahead // 2)
            self._since, self._counted = now, self._emitted
        self._poll += 1
        self._claiming, self._hinted = True, False
        limit = max(0, wanted)

        def send() -> None:
            self._board.claim(limit, lambda got: self._claimed(limit, got))

        self.thread.do(self._own_claim.a / 2 * US, send)

    def _claimed(self, limit: int, got: list[int]) -> None:
        def read() -> None:
            self._claiming = False
            if limit:
                self._promising = self._hinted or len(got) >= limit
            poll = self._poll
            self._clock.after(POLL * self._rng.uniform(0.7, 1.3), lambda: self._look(poll))
            self._out += len(got)
            self._waiting.extend(got)
            self._pump()
            self._advance()

        own = self._own_claim
        self.thread.do((own.a / 2 + own.b * len(got)) * US, read)

    def _look(self, poll: int) -> None:
        if poll == self._poll:
            self._promising = self._sweep = True
            self._advance()

    def _pump(self) -> None:
        while self._waiting and self._room() > 0:
            self._queue.append(self._waiting.popleft())
            self._live += 1
            self._emitted += 1
        self._step()

    # -- execute -----------------------------------------------------------------------------

    def _room(self) -> int:
        if self._gate() <= 0:
            return 0
        return self._slots - self._live

    def _step(self) -> None:
        """Have the queue worked off; a burst at a time if handlers do not wait."""
        if self._stepping or not self._queue:
            return
        self._stepping = True
        if self._duration:
            group = list(self._queue)
            self._queue.clear()
            self.thread.do(self._handler * len(group), lambda: self._started(group))
            return
        # What a slot frees is taken by the next one within the burst.
        count = min(BURST, len(self._queue) + len(self._waiting), max(1, self._gate()))
        self.thread.do(self._handler * count, lambda: self._burst(count))

    def _started(self, group: list[int]) -> None:
        self._stepping = False
        self._clock.after(
            self._duration,
            lambda: self.thread.do(self._handler * len(group), lambda: self._ended(group)),
        )
        self._step()

    def _burst(self, count: int) -> None:
        for _ in range(count):
            if not self._queue:
                break
            self._outcome(self._queue.popleft())
            if not self._queue:
                self._pump()
                self._advance()
        self._stepping = False
        self._step()

    def _ended(self, group: list[int]) -> None:
        for number in group:
            self._outcome(number)
            self._pump()
            self._advance()

    # -- settle ------------------------------------------------------------------------------

    def _gate(self) -> int:
        return 4 * COUNT - len(self._batch) - self._writing

    def _outcome(self, number: int) -> None:
        self._live -= 1
        self._batch.append(number)
        size = len(self._batch)
        if size >= COUNT or size + self._writing >= self._out:
            self._flush()
        elif size == 1:
            timer = self._timer
            self._clock.after(TIMESPAN, lambda: self._ripe(timer))

    def _ripe(self, timer: int) -> None:
        if timer == self._timer and self._batch:
            if self._writing:
                self._due = True
            else:
                self._flush()

    def _flush(self) -> None:
        batch, self._batch = self._batch, []
        self._timer += 1
        self._due = False
        if not batch:
            return
        self._writing += len(batch)
        own = self._own_settle

        def written() -> None:
            self._writing -= len(batch)
            self._out -= len(batch)
            self.finished += batch
            if self._due:
                self._flush()
            self._pump()
            self._advance()

        def answered() -> None:
            self.thread.do(own.a / 2 * US, written)

        self.thread.do(
            (own.a / 2 + own.b * len(batch)) * US,
            lambda: self._board.settle(len(batch), answered),
        )
