"""``ClaimWriter``: renews and settles claims through an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from rxdispatch.boards.checks import check_settlement
from rxdispatch.boards.engine import Engine
from rxdispatch.boards.portions import chunks, portions_of_settlements
from rxdispatch.claim import ANSWERED, Claim, Settlement
from rxdispatch.clock import lease_clock_of
from rxdispatch.relay import Relay
from rxdispatch.results import BoardStats

__all__ = ["ClaimWriter"]

Renew = Callable[[Sequence[tuple[str, int]], float], Awaitable[list[bool]]]


class ClaimWriter:
    """
    Renews and settles the claims of a *board*, updates their state, and counts.

    Attributes:
        epochs: How many servers have taken over from another.
        settled_kinds: Emits the kinds of the tasks whose claims were settled.
    """

    def __init__(self, board: Any, engine: Engine) -> None:
        self._board = board
        self._engine = engine
        self._settled = self._refused = self._lost = 0
        self.epochs = 0
        self.settled_kinds: Relay[list[str]] = Relay("settled kinds")

    @property
    def stats(self) -> BoardStats:
        """What this handle has counted since it was made."""
        return BoardStats(
            settled=self._settled,
            refused=self._refused,
            lost=self._lost,
            epochs=self.epochs,
            undelivered=self._engine.undelivered,
        )

    async def renew(
        self,
        claims: Sequence[Claim[Any]],
        lease: float,
        renew: Renew | None = None,
    ) -> list[Claim[Any]]:
        """
        Extend leases; returns the claims whose token no longer holds.

        *renew* does it, if it is given, instead of the engine.
        """
        renew = renew or self._engine.renew
        clock = lease_clock_of(asyncio.get_running_loop())
        lost: list[Claim[Any]] = []
        for chunk in chunks(claims):
            deadline = clock() + lease
            over = [claim._answered for claim in chunk]
            held = await renew([(c.task.id, c.token) for c in chunk], lease)
            for claim, holds, was_over in zip(chunk, held, over, strict=True):
                if holds:
                    claim._renewed(deadline)
                elif was_over:
                    lost.append(claim)
                elif claim._missed():
                    self.lose((claim,))
                    lost.append(claim)
        return lost

    def lose(self, claims: Iterable[Claim[Any]]) -> None:
        """Count *claims* as lost, and stop their handlers."""
        for claim in claims:
            self._lost += claim._lose()

    async def settle(self, settlements: Iterable[Settlement]) -> list[bool]:
        """End claims; for each, whether its token still held."""
        wanted = list(settlements)
        fresh = self._fresh(wanted)
        try:
            Claim._settling(fresh)
            for chunk in portions_of_settlements(fresh):
                held = await self._engine.settle(chunk)
                done = sum(held)
                self._settled += done
                self._refused += len(held) - done
                Claim._settled(chunk, held)
                if self.settled_kinds.active:
                    pairs = zip(chunk, held, strict=True)
                    self.settled_kinds.emit([s.claim.task.kind for s, holds in pairs if holds])
        except BaseException:
            Claim._unsettled(fresh)
            raise
        return Claim._answers(wanted)

    def _fresh(self, wanted: list[Settlement]) -> list[Settlement]:
        """Return the settlements to write: one for each claim that has no known answer."""
        fresh: list[Settlement] = []
        seen: set[int] = set()
        board = self._board
        for settlement in wanted:
            ours = settlement.__class__ is Settlement and settlement.claim._origin.board is board
            if not ours:
                check_settlement(settlement, board.name)
            claim = settlement.claim
            if claim._state & ANSWERED and claim._knows(settlement.kind):
                continue
            if claim.token not in seen:
                seen.add(claim.token)
                fresh.append(settlement)
        return fresh
