"""The ``assign`` operator: give each claim a slot on a node that has room."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from reactivex import Observable, abc

from rxdispatch.claim import LOST, Change, Claim
from rxdispatch.log import get_logger
from rxdispatch.node import NodeChange, Slot
from rxdispatch.operators._subscription import Subscription, operator_of
from rxdispatch.operators.tasks._assignment import Assignment
from rxdispatch.operators.tasks._claim_slots import ClaimSlots
from rxdispatch.operators.tasks._outage import Outage
from rxdispatch.protocols import FeedLike
from rxdispatch.seconds import seconds

__all__ = ["assign"]

log = get_logger(__name__)

BATCH = 256


def assign(
    feed: FeedLike, *, lease: float | timedelta = 30.0, **criteria: Any
) -> Callable[[Observable[Claim[Any]]], Observable[Assignment[Any]]]:
    """
    Reserve a slot on a node for each claim.

    ::

        --a--b--c-----------|
        [   assign(feed)    ]   room for two, then one more
        --A--B-------C------|

    While no node has room, claims wait in the order of arrival, and the valve is closed; they go
    on when the feed reports room. A slot is released when its claim is settled, lost or dropped.
    ``execute`` takes the assignments; within its handler ``current_node()`` returns the node.

    Args:
        feed: An open feed of the fleet.
        lease: Seconds after which a slot is free if this process dies; renewed until then.
        criteria: Requirements of a node, see ``Criteria``: ``pool``, ``labels``, ``where``,
            ``exclude``, ``strategy``, ``key``.

    Raises:
        ConfigError: If an argument breaks its rule.

    While the server is unreachable, claims wait. Errors of the source pass through at once, and
    disposal gives back claims without a slot. The stream completes when the source has completed
    and all claims are emitted. The valve also closes when 256 claims wait.
    """
    lease = seconds("lease", lease, zero=False)
    feed.criteria(**criteria)

    return operator_of(
        lambda observer, scheduler: _Assigner(feed, lease, criteria, observer, scheduler)
    )


class _Assigner(Subscription[Claim[Any], Assignment[Any]]):
    """One subscription of ``assign``."""

    def __init__(
        self,
        feed: FeedLike,
        lease: float,
        criteria: dict[str, Any],
        observer: abc.ObserverBase[Assignment[Any]],
        scheduler: abc.SchedulerBase | None,
    ) -> None:
        super().__init__("assign", BATCH, observer, scheduler, on_room=self._advance)
        self._feed = feed
        self._lease = lease
        self._criteria = criteria
        self._waiting: deque[Claim[Any]] = deque()
        self._ready: deque[Assignment[Any]] = deque()
        self._slots = ClaimSlots(feed)
        self._taking: asyncio.Task[None] | None = None
        self._full = False  # no node is known to have room
        self._news = 0  # how often the feed reported room
        self._done = False
        self._outage = Outage(
            lambda error: log.warning("assign_waits", error=error),
            lambda: log.info("assign_goes_on"),
        )
        self._changes = feed.changes.subscribe(self._changed, on_completed=self._retry)

    # -- what comes in -----------------------------------------------------------------------

    def on_next(self, claim: Claim[Any]) -> None:
        """Reserve a slot for *claim* as soon as possible."""
        if self.closed:
            claim._give_back()
            return
        if (stopped := claim._stopped) is not None:
            if stopped == "released":
                claim._give_back()
            self._retry()
            return
        claim._operator = self
        self._waiting.append(claim)
        if not self.upstream.demand_checked and len(self._waiting) > BATCH:
            self.upstream.check_demand()
        self._advance()

    def on_completed(self) -> None:
        """Complete once every claim has a slot."""
        self._done = True
        self._advance()

    def clear(self) -> None:
        """Give back claims without a slot and claims that were not emitted, with their slots."""
        self._changes.dispose()
        if self._taking is not None:
            self._taking.cancel()
        unseen = [*(made.claim for made in self._ready), *self._waiting]
        self._waiting.clear()
        self._ready.clear()
        for claim in unseen:
            claim._operator = None
            if claim._open:
                claim._give_back()

    def claim_changed(self, claim: Claim[Any], change: Change) -> None:
        """Drop a claim that was lost or recalled before it had a slot."""
        if claim in self._waiting:
            self._waiting.remove(claim)
        if change == "recalled":
            claim._give_back()
        self._retry()

    # -- room --------------------------------------------------------------------------------

    def room(self) -> int:
        """How many more claims may wait; none while no node has room."""
        return 0 if self._full else BATCH - len(self._waiting) - len(self._ready)

    def _room_below(self) -> int:
        return sys.maxsize if self.below is None else self.below.room()

    def _changed(self, change: NodeChange) -> None:
        if change.node is not None and change.kind != "removed" and change.node.room > 0:
            self._news += 1
            if self._full:
                self._retry()

    def _retry(self) -> None:
        """Try again: a node may have room, or a claim has gone, or the closed feed now fails."""
        self._full = False
        self._go_on()

    def _go_on(self) -> None:
        self._advance()
        if not self.closed:
            self.gate.opened()

    # -- slots -------------------------------------------------------------------------------

    def _advance(self) -> None:
        try:
            while self._ready and not self.closed and self._room_below() > 0:
                self._emit(self._ready.popleft())
        except BaseException:
            # The subscriber raised; the assignments behind this one are still due.
            self.loop.call_soon(self._go_on, context=self.home.copy())
            raise
        if self.closed:
            return
        if self._waiting:
            # A slot is taken only for a claim that there is room for below.
            count = min(len(self._waiting), BATCH, self._room_below() - len(self._ready))
            if count > 0 and not self._full and self._taking is None:
                self._taking = self.loop.create_task(self._take(count), context=self.home.copy())
                self._taking.add_done_callback(self._taken, context=self.home.copy())
        elif self._done and not self._ready and self._taking is None:
            self.complete()

    async def _take(self, count: int) -> None:
        news = 0

        async def reserve() -> list[Slot]:
            nonlocal news
            news = self._news
            return await self._feed.reserve_many(count, lease=self._lease, **self._criteria)

        slots = await self._outage.until_answered(reserve, 0.1, 0.5)
        # If some nodes had room, others may have room too. The call may have missed room that
        # the feed reported meanwhile.
        self._full = not slots and news == self._news
        self._hand_out(slots)

    def _hand_out(self, slots: list[Slot]) -> None:
        unused: list[Slot] = []
        for slot in slots:
            if self._waiting and not self.closed:
                claim = self._waiting.popleft()
                claim._operator = None
                self._slots.add(claim, slot)
                self._ready.append(Assignment(claim, slot))
            else:
                unused.append(slot)
        if unused:
            self._feed.release_later(unused)

    def _emit(self, made: Assignment[Any]) -> None:
        if made.claim._stopped is not None:
            # Nothing will run this claim any more: the claim and its slot go back.
            self._slots.release(made.claim)
            if not made.claim._state & LOST:
                made.claim._give_back()
            return
        self.observer.on_next(made)

    def _taken(self, task: asyncio.Task[None]) -> None:
        self._taking = None
        if task.cancelled():
            # By the disposal, or by other code, for example code that cancels all tasks.
            self.loop.call_later(0.1, self._advance, context=self.home.copy())
            return
        error = task.exception()
        if isinstance(error, Exception):
            self.fail(error)
        else:
            self._go_on()
