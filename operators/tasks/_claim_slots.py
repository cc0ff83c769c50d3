"""``ClaimSlots``: which slot each claim has, until the claim ends in whichever way."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, cast

from rxdispatch.claim import Claim, Holder
from rxdispatch.node import Slot
from rxdispatch.protocols import FeedLike

__all__ = ["ClaimSlots"]


class _ClaimSlot(weakref.ref[Claim[Any]]):
    """A weak reference that still knows which claim it was when the claim has gone."""

    __slots__ = ("inner", "slot", "token")
    inner: Holder | None
    slot: Slot
    token: int


class ClaimSlots:
    """
    Releases a slot when its claim is settled, lost, or dropped by whoever had it.

    It takes the place of the claim's holder, which renews the claim, and tells it in turn. It
    outlives the subscription that filled it.

    Args:
        feed: Where the slots are from.
    """

    def __init__(self, feed: FeedLike) -> None:
        self._feed = feed
        self._loop = asyncio.get_running_loop()
        self._held: dict[int, _ClaimSlot] = {}

    @property
    def out(self) -> int:
        """How many claims have a slot; those that wait for one cannot be settled."""
        return len(self._held)

    def add(self, claim: Claim[Any], slot: Slot) -> None:
        """Let *claim* have *slot*."""
        held = _ClaimSlot(claim, cast("Callable[[weakref.ref[Claim[Any]]], None]", self._gone))
        held.inner, held.slot, held.token = claim.holder, slot, claim.token
        self._held[claim.token] = held
        claim.holder = self

    def settled(self, claim: Claim[Any]) -> None:
        """The claim has ended: its slot is free."""
        held = self._held.get(claim.token)
        if held is not None:
            self._leave(held)
            if held.inner is not None:
                held.inner.settled(claim)

    def _gone(self, held: _ClaimSlot) -> None:
        # May run in any thread and at any allocation: only hand it to the loop.
        try:
            self._loop.call_soon_threadsafe(self._leave, held)
        except RuntimeError:
            pass  # the loop is closed; the lease of the slot ends it

    def _leave(self, held: _ClaimSlot) -> None:
        if self._held.pop(held.token, None) is not None:
            self._feed.release_later([held.slot])
