"""``ClaimSlots``: the slots on nodes that claims hold until they end, however they end."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, cast

from rxdispatch.claim import Change, Claim
from rxdispatch.node import Slot
from rxdispatch.protocols import FeedLike

__all__ = ["ClaimSlots"]


class _ClaimSlot(weakref.ref[Claim[Any]]):
    """A weak reference to a claim that still knows its slot when the claim has gone."""

    __slots__ = ("slot", "token")
    slot: Slot
    token: int


class ClaimSlots:
    """
    Releases a slot when its claim is settled, lost, or dropped.

    It outlives the subscription that filled it.

    Args:
        feed: Where the slots come from.
    """

    def __init__(self, feed: FeedLike) -> None:
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, _ClaimSlot] = {}

    def add(self, claim: Claim[Any], slot: Slot) -> None:
        """Hold *slot* until *claim* has ended."""
        held = _ClaimSlot(claim, cast("Callable[[weakref.ref[Claim[Any]]], None]", self._gone))
        held.slot, held.token = slot, claim.token
        self._held[claim.token] = held
        # Claims that wait for a slot cannot be settled.
        claim._outstanding = self._held.__len__
        claim._watch(self)

    def release(self, claim: Claim[Any]) -> None:
        """Give back the slot of *claim*."""
        held = self._held.get(claim.token)
        if held is not None:
            self._leave(held)

    def claim_changed(self, claim: Claim[Any], change: Change) -> None:
        """Release the slot, unless the claim was only recalled."""
        if change != "recalled":
            self.release(claim)

    def _gone(self, held: _ClaimSlot) -> None:
        # May run in any thread, during any allocation: only hand it to the loop.
        try:
            self._loop.call_soon_threadsafe(self._leave, held)
        except RuntimeError:
            pass  # the loop is closed; the slot is free when its lease lapses

    def _leave(self, held: _ClaimSlot) -> None:
        if self._held.pop(held.token, None) is not None:
            self._feed.release_later([held.slot])
