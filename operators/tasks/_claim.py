"""The ``claim`` operator: takes tasks from a board in batches, as fast as downstream has room."""

from __future__ import annotations

import asyncio
import math
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any

from reactivex import Observable, abc
from reactivex.disposable import CompositeDisposable, Disposable

from rxdispatch.checks import integer, kind_tuple
from rxdispatch.claim import Claim
from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.operators._subscription import Downstream, operator_of
from rxdispatch.operators.tasks._claim_buffer import ClaimBuffer
from rxdispatch.operators.tasks._handed import Handed
from rxdispatch.operators.tasks._outage import Outage
from rxdispatch.protocols import BoardLike
from rxdispatch.seconds import seconds

__all__ = ["claim"]

log = get_logger(__name__)

POLL = 1.4
"""Seconds between claims of an idle worker, before jitter: the delay that a lost message costs."""

POLLS = 20
"""About how many claims a second all idle workers of a board make together."""

DELIVERIES = 16
"""After so many deliveries a worker claims, which tells the board what it has read."""

SOON = 0.001
"""Seconds until a task that is due counts as due."""

AHEAD = 0.05
"""Seconds of work to claim ahead: enough to hide a round trip, too little to hoard tasks."""

CANCELLED = 0.1
"""Seconds until the next claim after other code has cancelled a claim."""

WINDOW = 0.02
"""The fewest seconds to measure the pace over; in less, slots freed together look fast."""


def claim(
    board: BoardLike,
    *,
    prefetch: int = 1024,
    lease: float | timedelta = 30.0,
    worker: str | None = None,
    kinds: Iterable[str] | None = None,
) -> Callable[[Observable[Any]], Observable[Claim[Any]]]:
    """
    Claim tasks from *board*; source items are hints that there may be work.

    ::

        --h------------h------------|
        [       claim(board)        ]
        ---c-c-c-c------c-c---------|

    The operator claims in batches, while fewer than *prefetch* claims are unsettled and there is
    room downstream. It asks for as many tasks as there is room for, and for as many more as
    downstream has lately taken in 50 ms: so fast handlers never wait for the server, and slow
    ones hold no tasks that other workers could run. Claims are renewed at a third of the lease
    until they are settled.

    Args:
        board: Where to claim.
        prefetch: How many claims may be unsettled at a time, at least 1.
        lease: Seconds a claim lasts without renewal.
        worker: A label for this worker; host and process id by default.
        kinds: Claim only tasks of these kinds; None for all.

    Raises:
        ConfigError: If an argument breaks its rule.

    The stream completes when the source has completed and no task is ready. While the server is
    unreachable, the operator waits, and then continues. Errors of the source pass through.
    Disposal stops claiming and gives back claims that were not emitted. If downstream drops a
    claim, its task is ready again after a lease.
    """
    integer("prefetch", prefetch)
    span = seconds("lease", lease, zero=False)
    only = kind_tuple(kinds)

    return operator_of(
        lambda observer, scheduler: _Claimer(
            board, prefetch, span, worker, only, observer, scheduler
        )
    )


class _Claimer(Downstream[Claim[Any]]):
    """One subscription of ``claim``: decides when to claim, and how many tasks."""

    def __init__(
        self,
        board: BoardLike,
        prefetch: int,
        lease: float,
        worker: str | None,
        kinds: Sequence[str] | None,
        observer: abc.ObserverBase[Claim[Any]],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__(observer, scheduler, on_room=self._on_room)
        self._board = board
        self._prefetch = prefetch
        self._most = prefetch  # fewer while answers take too long
        self._lease = lease
        self._inbox = board._intakes.inbox(kinds, worker, lease)
        self._sources = CompositeDisposable()
        self._buffer = ClaimBuffer(
            board,
            lease,
            observer,
            self.below,
            on_left=self._advance,
            on_stop=self.complete,
            on_error=self.fail,
        )
        self._handed = Handed(board, self._inbox, self._buffer, self._on_released)
        self._claiming: asyncio.Task[None] | None = None
        self._suspects = 0  # held at the last look
        self._promising = False  # whether the board may have something ready
        self._hinted = False  # whether a hint came while a claim was under way
        self._sweep = True  # whether it is time to look even without room
        self._done = False
        self._deliveries = 0  # since the last claim
        self._due_at = math.inf  # told while a claim was under way, whose reply may be older
        self._outage = Outage(
            lambda error: log.warning("claims_waiting", board=board.name, error=error),
            lambda: log.info("claims_going_on", board=board.name),
        )
        self._ahead = 0
        self._counted = 0
        self._since = self.loop.time()

    def connect(self, source: Observable[Any]) -> abc.DisposableBase:
        """Take the items of *source* as hints; the disposable ends everything."""
        self._sources.add(self._inbox.listen(self))
        # Hints are few and never wait: they must not ask the valve below.
        self._sources.add(
            source.subscribe(
                lambda _: self.woken(),
                self.fail,
                self._on_completed,
                scheduler=LoopScheduler(self.loop),
            )
        )
        self.woken()
        return Disposable(self.dispose)

    def clear(self) -> None:
        """Stop claiming; claims that were not emitted go back, even if they are on their way."""
        self._sources.dispose()
        if self._claiming is not None:
            self._claiming.cancel()
        self._inbox.leave()
        self._buffer.close()

    # -- what happens ------------------------------------------------------------------------

    def woken(self) -> None:
        """There may be tasks to claim."""
        self._hinted = self._promising = True
        if self._inbox.room is not None:
            # It looks even without room, so that its claim tells others of what it leaves.
            self._sweep = True
        self._advance()

    def due(self, seconds: float) -> None:
        """A task is due in *seconds*."""
        at = self.loop.time() + max(seconds, SOON)
        if self._claiming is not None:
            self._due_at = min(self._due_at, at)
        elif self.timer is not None and self.timer.when() > at:
            self._look_again(max(seconds, SOON))

    def delivered(self, claims: list[Claim[Any]], age: float) -> None:
        """The board has handed *claims* over."""
        self._deliveries += 1
        self._handed.add(claims, age)
        if self._deliveries >= DELIVERIES:
            self._promising = True
        self._advance()

    def _on_released(self) -> None:
        """What was handed over waits in the buffer, or has begun."""
        if self._surplus():
            # Others share the room downstream. First the board must hand nothing more over.
            self._sweep = True
            self._advance()

    def _surplus(self) -> int:
        """How many claims wait for which there is no room, in spite of what the board was told."""
        over = len(self._buffer.waiting) - self._ahead
        return over if over > 0 and self._buffer.room() <= 0 else 0

    def cancelled(self, tokens: Sequence[int]) -> None:
        """The claims with these *tokens* were cancelled; any, if there are none."""
        self._buffer.cancelled(tokens, self._inbox)

    def _on_completed(self) -> None:
        """There are no more hints: look once more and complete."""
        self._done = self._promising = True
        self._advance()

    def _on_room(self) -> None:
        self._buffer.pump()
        self._advance()

    # -- how many ----------------------------------------------------------------------------

    def _wanted(self) -> int:
        buffer = self._buffer
        waiting, room = buffer.pending, buffer.room()
        if room <= 0 and waiting * 2 > self._ahead:
            return 0
        return min(self._prefetch - buffer.keeper.out, room + self._ahead - waiting, self._most)

    def _free(self) -> int:
        """For how many tasks there is room now, so that they may be handed over at any time."""
        buffer = self._buffer
        room = buffer.room() - buffer.pending
        return max(0, min(self._prefetch - buffer.keeper.out, room, 65_535))

    def _unparked(self) -> bool:
        """Whether there is room, and the board hands nothing over until the next claim."""
        return not self._done and self._inbox.room == 0 and self._free() > 0

    def _weigh(self, wanted: int, took: float) -> None:
        """
        Ask for half as many after a late answer, and for more after an early one.

        Payloads of a few hundred KiB over a slow link can take longer than the client waits, or
        than the lease: if it asked for the same number again, they would never arrive.
        """
        if took * 2 > self._lease:
            self._most = max(1, wanted // 2)
        elif wanted >= self._most:
            self._most = min(self._prefetch, self._most * 2)

    def _measure(self) -> None:
        """Measure how many claims downstream takes in the time to claim ahead."""
        now = self.loop.time()
        if now - self._since >= WINDOW:
            taken = self._buffer.emitted - self._counted
            self._ahead = max(int(taken / (now - self._since) * AHEAD), self._ahead // 2)
            self._since, self._counted = now, self._buffer.emitted

    # -- the loop ----------------------------------------------------------------------------

    def _advance(self) -> None:
        """Claim if there is a reason to and room; otherwise complete if all is done."""
        buffer = self._buffer
        suspects = buffer.keeper.suspects
        if suspects < self._suspects:
            # There may be more suspects, which a worker may not take while it holds these.
            self._hinted = self._promising = True
        self._suspects = suspects
        if self._claiming is not None or self.closed:
            return
        if self._outage.lasts and not self._hinted and self.timer is not None:
            return  # The server gets a moment, unless a hint says that it is back.
        # A worker that is not parked any more has to claim as soon as it has room again.
        promising = self._promising or self._unparked()
        wanted = self._wanted() if promising else 0
        if wanted > 0 or self._sweep:
            self._sweep = False
            if wanted > 0:
                # A look without room says nothing about the pace, and would begin a window so short
                # that slots freed together look fast.
                self._measure()
            if self.timer is not None:
                self.timer.cancel()
                self.timer = None
            self._claiming = self.loop.create_task(
                self._claim(max(0, wanted)), context=self.home.copy()
            )
            self._claiming.add_done_callback(self._claimed, context=self.home.copy())
        elif self._done and not (promising or buffer.pending or suspects):
            self.complete()

    async def _claim(self, wanted: int) -> None:
        self._hinted = False
        self._deliveries = 0
        self._due_at = math.inf
        began = self.loop.time()
        # Something may have been handed over since; in this turn, the inbox notes what was read.
        wanted = max(0, min(wanted, self._wanted()))
        try:
            batch = await self._inbox.claim(wanted, park=0 if self._done else self._free())
        except StoreUnavailableError as error:
            self._outage.failed(error)
            if error.maybe_executed and wanted:
                self._weigh(wanted, self._lease)
            self._look_again(random.uniform(0.1, 0.5))
            return
        self._outage.answered()
        if self.closed:
            self._board._intakes.give_back([*batch.claims, *batch.handed])
            return
        if wanted > 0:
            self._weigh(wanted, self.loop.time() - began)
            self._promising = self._hinted or len(batch.claims) + len(batch.handed) >= wanted
        if not wanted and (over := self._surplus()):
            self._board._intakes.give_back(self._buffer.surplus(over))
        wait = max(POLL, batch.parked / POLLS) * random.uniform(0.7, 1.3)
        if batch.due_in is not None:
            # A timer may fire slightly early, before the task is due.
            wait = min(wait, max(batch.due_in, SOON))
        self._look_again(max(min(wait, self._due_at - self.loop.time()), SOON))
        self._handed.add(list(batch.handed), self.loop.time() - began)
        self._buffer.add(batch.claims)
        self._suspects = self._buffer.keeper.suspects

    def _claimed(self, task: asyncio.Task[None]) -> None:
        self._claiming = None
        if task.cancelled():
            # At the end, or by other code, for example code that cancels all tasks of the loop.
            self._promising = True
            self._look_again(CANCELLED)
            return
        error = task.exception()
        if isinstance(error, Exception):
            self.fail(error)
        else:
            self._advance()

    def _look_again(self, delay: float) -> None:
        if not self.closed:
            if self.timer is not None:
                self.timer.cancel()
            self.timer = self.loop.call_later(delay, self._look, context=self.home.copy())

    def _look(self) -> None:
        self.timer = None
        self._promising = self._sweep = True
        self._advance()
