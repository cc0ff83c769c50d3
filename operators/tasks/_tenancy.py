"""``Tenancy``: which slot each claim has, until the claim ends in whichever way."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any, cast

from rxdispatch.claim import Claim, Holder
from rxdispatch.node import Slot
from rxdispatch.protocols import FeedLike

__all__ = ["Tenancy"]


class _Tenant(weakref.ref[Claim[Any]]):
    """A weak reference that still knows which claim it was when the claim has gone."""

    __slots__ = ("inner", "slot", "token")
    inner: Holder | None
    slot: Slot
    token: int


class Tenancy:
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
        self._tenants: dict[int, _Tenant] = {}

    @property
    def out(self) -> int:
        """How many claims have a slot; those that wait for one cannot be settled."""
        return len(self._tenants)

    def add(self, claim: Claim[Any], slot: Slot) -> None:
        """Let *claim* have *slot*."""
        tenant = _Tenant(claim, cast("Callable[[weakref.ref[Claim[Any]]], None]", self._gone))
        tenant.inner, tenant.slot, tenant.token = claim.holder, slot, claim.token
        self._tenants[claim.token] = tenant
        claim.holder = self

    def settled(self, claim: Claim[Any]) -> None:
        """The claim has ended: its slot is free."""
        tenant = self._tenants.get(claim.token)
        if tenant is not None:
            self._leave(tenant)
            if tenant.inner is not None:
                tenant.inner.settled(claim)

    def _gone(self, tenant: _Tenant) -> None:
        # May run in any thread and at any allocation: only hand it to the loop.
        try:
            self._loop.call_soon_threadsafe(self._leave, tenant)
        except RuntimeError:
            pass  # the loop is closed; the lease of the slot ends it

    def _leave(self, tenant: _Tenant) -> None:
        if self._tenants.pop(tenant.token, None) is not None:
            self._feed.release_later([tenant.slot])
