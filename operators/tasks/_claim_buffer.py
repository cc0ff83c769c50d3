"""``ClaimBuffer``: the claims between a board and an observer, emitted as there is room."""

from __future__ import annotations

import asyncio
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import copy_context
from typing import Any

from reactivex import abc

from rxdispatch.claim import LOST, Claim
from rxdispatch.intakes import WorkerInbox
from rxdispatch.listeners import LEAVING
from rxdispatch.operators.tasks._lease_keeper import LeaseKeeper
from rxdispatch.protocols import BoardLike, Valve

__all__ = ["ClaimBuffer"]

WIND_DOWN = 2.0
"""Seconds that cancelled handlers get to end before their claims are given back."""


class ClaimBuffer:
    """
    The claims of one subscription between the board and the observer.

    It is also the subscription's ``Intake``, which the owner of the board stops and drains.

    Args:
        board: Where the claims come from.
        lease: Seconds a claim lasts.
        observer: Gets the claims.
        below: The valve of the subscriber, if any; the owner calls :meth:`pump` when it opens.
        on_left: Called when held claims have left.
        on_stop: Called when the intake is told to stop.
        on_error: Called with the error that the observer has raised; must end the stream.
    """

    def __init__(
        self,
        board: BoardLike,
        lease: float,
        observer: abc.ObserverBase[Claim[Any]],
        below: Valve | None,
        *,
        on_left: Callable[[], None],
        on_stop: Callable[[], None],
        on_error: Callable[[BaseException], None],
    ) -> None:
        self._board = board
        self._observer = observer
        self._below = below
        self._on_left = on_left
        self._on_stop = on_stop
        self._on_error = on_error
        self._pumping = False
        self._loop = asyncio.get_running_loop()
        self._home = copy_context()
        self.emitted = 0
        self.stopped = False
        self.waiting: deque[Claim[Any]] = deque()
        self._withheld: dict[int, Claim[Any]] = {}
        self.keeper = LeaseKeeper(board, lease, self._left, self._recall)
        self._attached = board._intakes.enlist(self)

    def room(self) -> int:
        """How many claims downstream can take now."""
        return sys.maxsize if self._below is None else self._below.room()

    @property
    def pending(self) -> int:
        """How many held claims were not emitted: they wait for room, or for their confirmation."""
        return len(self.waiting) + len(self._withheld)

    def add(self, claims: list[Claim[Any]]) -> None:
        """Hold *claims*, and emit as many as there is room for."""
        self.keeper.add(claims)
        self.waiting.extend(claims)
        self.pump()

    def hold(self, claims: list[Claim[Any]], renew_within: float) -> None:
        """Hold *claims* that are not to be emitted yet; renew them soon."""
        self.keeper.add(claims, renew_within)
        self._withheld.update((claim.token, claim) for claim in claims)

    def release(self, claims: list[Claim[Any]]) -> None:
        """Emit *claims* that were held, as soon as there is room."""
        withheld = self._withheld
        self.waiting.extend(c for c in claims if withheld.pop(c.token, None) is not None)
        self.pump()

    def drop(self, claims: list[Claim[Any]]) -> None:
        """Give back those of *claims* that were held and not emitted."""
        withheld = self._withheld
        self._board._intakes.give_back(
            [c for c in claims if withheld.pop(c.token, None) is not None]
        )

    def cancelled(self, tokens: Sequence[int], inbox: WorkerInbox) -> None:
        """Stop the work on held claims with these *tokens*; without any, see which are lost."""
        if tokens:
            inbox.lose(self.keeper.held(tokens))
        else:
            self.keeper.renew_soon(0.0)

    def surplus(self, count: int) -> list[Claim[Any]]:
        """Remove and return the last *count* claims that wait."""
        return [self.waiting.pop() for _ in range(count)]

    def pump(self) -> None:
        """Emit as many claims as there is room for; may be called from within ``on_next``."""
        if self._pumping:
            return
        self._pumping = True
        on_next = self._observer.on_next
        try:
            while self.waiting and not self.stopped and (room := self.room()) > 0:
                # As many as there is room for before asking again: each question goes down the
                # whole chain of valves.
                now = self.keeper.now()
                while room > 0 and self.waiting and not self.stopped:
                    claim = self.waiting.popleft()
                    if claim._state & LOST:
                        continue  # it was lost while it waited
                    if claim._deadline <= now:
                        # The process was stopped meanwhile: another worker may have the task.
                        self._board._intakes.give_back([claim])
                        continue
                    room -= 1
                    self.emitted += 1
                    on_next(claim)
        except LEAVING:
            raise
        except BaseException as error:
            if self.stopped:
                raise
            # The claims behind this one go back at once. The end comes in a turn of its own,
            # because the caller may be the valve below, which has nothing to do with the error.
            self.close()
            self._loop.call_soon(self._on_error, error, context=self._home.copy())
        finally:
            self._pumping = False

    def close(self) -> None:
        """Emit nothing more and give back waiting claims; emitted claims stay held."""
        if self.stopped:
            return
        self.stopped = True
        unseen = [*self.waiting, *self._withheld.values()]
        waiting = [claim for claim in unseen if not claim._state & LOST]
        self.waiting.clear()
        self._withheld.clear()
        self._board._intakes.give_back(waiting)
        if not self.keeper.out:
            self._attached.dispose()

    # -- Intake ------------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop claiming, and give back claims that were not emitted."""
        if not self.stopped:
            self._on_stop()

    def revoke(self) -> None:
        """Cancel the work on every held claim."""
        for claim in self.keeper.claims():
            claim._recall()

    def renew_soon(self) -> None:
        """Renew every held claim at a random moment within a short while."""
        self.keeper.renew_soon()

    async def idle(self) -> None:
        """Wait until every emitted claim is settled."""
        await self.keeper.idle()

    async def wind_down(self) -> None:
        """Wait for cancelled work to end; then give back the claims that are still held."""
        try:
            async with asyncio.timeout(WIND_DOWN):
                await self.keeper.idle()
        except TimeoutError:
            self._board._intakes.give_back(self.keeper.claims())

    def _recall(self, tokens: set[int]) -> list[Claim[Any]]:
        """Remove the claims with these tokens from the queue and return them."""
        recalled = [claim for claim in self.waiting if claim.token in tokens]
        if recalled:
            self.waiting = deque(c for c in self.waiting if c.token not in tokens)
        withheld = [self._withheld.pop(token) for token in tokens & self._withheld.keys()]
        return recalled + withheld

    def _left(self) -> None:
        if not self.stopped:
            self._on_left()
        elif not self.keeper.out:
            self._attached.dispose()
