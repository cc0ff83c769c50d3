"""``LeaseKeeper``: renews the leases of claims until they are settled."""

from __future__ import annotations

import asyncio
import math
import random
import weakref
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any, cast

from rxdispatch.claim import Change, Claim, ClaimRef, Settlement
from rxdispatch.clock import lease_clock_of
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.protocols import BoardLike
from rxdispatch.task import Task

__all__ = ["LeaseKeeper"]

log = get_logger(__name__)

SOON = 0.5
"""The most seconds until claims are renewed out of turn: workers must not all come at once."""


class LeaseKeeper:
    """
    Renews claims until they are settled, and forgets claims that downstream has dropped.

    It refers to claims weakly: a claim that downstream drops (a ``filter``, an exception) would
    otherwise be renewed forever. If the handler of a dropped claim has not begun, the task is given
    back, and is ready after a lease. If it has begun, the lease lapses, which counts as a crash: a
    pipeline that loses the outcomes of its handlers would otherwise run the tasks again forever.

    It outlives the subscription that filled it.

    Args:
        board: Where the claims came from.
        lease: Seconds a renewal lasts; renewed at a third of it.
        on_change: Called at most once per loop turn, after claims have left.
        recall: Takes back the claims with the given tokens that were not emitted yet.
    """

    def __init__(
        self,
        board: BoardLike,
        lease: float,
        on_change: Callable[[], None],
        recall: Callable[[set[int]], list[Claim[Any]]],
    ) -> None:
        self._board = board
        self._lease = lease
        self._on_change = on_change
        self._recall = recall
        self._loop = asyncio.get_running_loop()
        self._home = copy_context()
        self._clock = lease_clock_of(self._loop)
        self._held: dict[int, ClaimRef] = {}
        self._watchers = (self,)  # one for all claims, so that none needs a tuple of its own
        self._suspects: set[int] = set()
        self._dropped: list[ClaimRef] = []
        self._timer: asyncio.TimerHandle | None = None
        self._renewal: asyncio.Task[None] | None = None
        self._all = False  # whether the next renewal is of every claim, however new
        self._changing = False
        self._empty = asyncio.Event()
        self._empty.set()

    @property
    def out(self) -> int:
        """How many claims are held."""
        return len(self._held)

    def now(self) -> float:
        """Return the time on the clock of leases."""
        return self._clock()

    @property
    def suspects(self) -> int:
        """How many of the held claims are of tasks with a crash behind them."""
        if self._suspects:
            self._suspects = {token for token in self._suspects if token in self._held}
        return len(self._suspects)

    def add(self, claims: Iterable[Claim[Any]], within: float | None = None) -> None:
        """Hold *claims* from now on; renew them *within* seconds, or a third of the lease."""
        held, gone, watchers, count = self._held, self._gone, self._watchers, self._held.__len__
        for claim in claims:
            claim._watchers = watchers
            claim._outstanding = count
            reference = claim._ref = ClaimRef(claim, gone)
            reference.began = False
            reference.origin = claim._origin
            reference.task_id = claim.task.id
            reference.token = claim.token
            held[claim.token] = reference
            if claim.crashes:
                self._suspects.add(claim.token)
        if held:
            self._empty.clear()
            third = self._lease / 3
            wait = third if within is None else min(within, third)
            if self._timer is not None and self._timer.when() > self._loop.time() + wait:
                self._timer.cancel()
                self._timer = None
            if self._timer is None and self._renewal is None:
                self._wait(wait)

    def claim_changed(self, claim: Claim[Any], change: Change) -> None:
        """Forget *claim*, unless it was only recalled and must still be given back."""
        if change == "recalled":
            return
        if change == "lost" and not claim._answered:
            log.warning("claim_lost", board=self._board.name, task=claim.task.id, token=claim.token)
        claim._ref = None  # its callback would cost a wake-up of the loop
        if self._held.pop(claim.token, None) is not None and not self._changing:
            self._changed()

    def claims(self) -> list[Claim[Any]]:
        """Return the held claims."""
        return [claim for held in self._held.values() if (claim := held()) is not None]

    def held(self, tokens: Iterable[int]) -> list[Claim[Any]]:
        """Return the held claims with these *tokens*."""
        refs = [self._held[token] for token in tokens if token in self._held]
        return [claim for ref in refs if (claim := ref()) is not None]

    async def idle(self) -> None:
        """Wait until nothing is held."""
        await self._empty.wait()

    # -- renewal -----------------------------------------------------------------------------

    def renew_soon(self, within: float = SOON) -> None:
        """Renew every claim at a random moment *within* seconds, to learn which are lost."""
        if not self._held:
            return
        self._all = True
        if self._renewal is None:
            if self._timer is not None:
                self._timer.cancel()
            self._wait(self._moment(within))

    def _moment(self, within: float = SOON) -> float:
        return random.uniform(0.0, min(within, self._lease / 10))

    def _wait(self, delay: float) -> None:
        self._timer = self._loop.call_later(
            delay, self._tick, self._clock() + delay, context=self._home.copy()
        )

    def _tick(self, expected: float) -> None:
        self._timer = None
        if not self._held:
            return
        now = self._clock()
        if now - expected > self._lease / 3:
            # Nothing could be renewed meanwhile: a callback or handler blocks the loop.
            log.warning(
                "event_loop_blocked",
                board=self._board.name,
                lag=round(now - expected, 3),
                lease=self._lease,
            )
        claims = self.claims()
        lapsed = [claim for claim in claims if claim.lost and claim._missed()]
        if lapsed:
            self._lapse(lapsed)
        # All but the newest: a claim that is passed over now must wait for another third.
        newest = math.inf if self._all else now + self._lease * 0.9
        self._all = False
        due = [c for c in claims if now < c._deadline < newest]
        if due:
            self._begin(due)
        else:
            self._next(self._lease / 3)

    def _begin(self, due: list[Claim[Any]]) -> None:
        self._renewal = self._loop.create_task(self._renew(due), context=self._home.copy())
        self._renewal.add_done_callback(self._renewed, context=self._home.copy())

    async def _renew(self, due: list[Claim[Any]]) -> None:
        # A server that does not answer must not delay the moment when the lease counts as lost.
        lapse = min(claim._deadline for claim in due)
        try:
            async with asyncio.timeout(lapse - self._clock()):
                lost = await self._board.renew(due, self._lease)
        except (StoreUnavailableError, TimeoutError) as error:
            reason = str(error) or type(error).__name__
            log.warning("renewal_failed", board=self._board.name, error=reason)
        else:
            for claim in lost:
                claim._lose()

    def _renewed(self, task: asyncio.Task[None]) -> None:
        self._renewal = None
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("renewal_failed", board=self._board.name, error=str(error))
        if self._all:
            self._next(self._moment())
            return
        ends = [claim._deadline for claim in self.claims() if claim._missed()]
        soonest = min(ends, default=math.inf) - self._clock()
        # Renewed: a third of the lease. Not renewed: again soon, and at the latest when it ends.
        self._next(max(0.0, min(self._lease / 3, soonest if soonest < 0.05 else soonest / 3)))

    def _next(self, delay: float) -> None:
        if self._held and self._timer is None:
            self._wait(delay)

    def _lapse(self, lapsed: list[Claim[Any]]) -> None:
        """Stop the work on *lapsed*, whose leases have ended; give back claims not yet emitted."""
        unseen = self._recall({claim.token for claim in lapsed})
        tokens = {claim.token for claim in unseen}
        for claim in lapsed:
            if claim.token in tokens:
                self._held.pop(claim.token, None)
            else:
                claim._lose()
        self._board._intakes.give_back(unseen)
        self._changed()

    # -- leaving -----------------------------------------------------------------------------

    def _gone(self, held: weakref.ref[Claim[Any]]) -> None:
        # May run in any thread, during any allocation: only hand it to the loop.
        try:
            self._loop.call_soon_threadsafe(
                self._drop, cast("ClaimRef", held), context=self._home.copy()
            )
        except RuntimeError:
            pass  # the loop is closed; the lease lapses

    def _drop(self, held: ClaimRef) -> None:
        if self._held.pop(held.token, None) is not None:
            self._dropped.append(held)
            self._changed()

    def _changed(self) -> None:
        if not self._changing:
            self._changing = True
            self._loop.call_soon(self._settle_change, context=self._home.copy())

    def _settle_change(self) -> None:
        self._changing = False
        dropped, self._dropped = self._dropped, []
        if began := [held for held in dropped if held.began]:
            self._warn("outcomes_dropped", began, "an outcome must reach settle")
        if fresh := [held for held in dropped if not held.began]:
            self._warn("claims_dropped", fresh, "a claim must be settled or released")
            # Ready again after a lease: a pipeline that drops it each time must not spin.
            self._board._intakes.post([self._release(held) for held in fresh])
        if not self._held:
            self._empty.set()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
        self._on_change()

    def _warn(self, event: str, dropped: list[ClaimRef], rule: str) -> None:
        first = dropped[0].task_id
        log.warning(event, board=self._board.name, count=len(dropped), first=first, rule=rule)

    def _release(self, held: ClaimRef) -> Settlement:
        task = Task.trusted(None, held.task_id)
        claim: Claim[Any] = Claim(task, held.token, 1, 0, held.origin, float("inf"))
        return claim.release(self._lease)
