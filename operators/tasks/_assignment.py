"""``Assignment``: a claim, and a slot on the node that does the work."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any, Generic, TypeVar

import attrs

from rxdispatch.claim import Claim
from rxdispatch.node import Node, Slot

__all__ = ["Assignment", "assigned", "claim_and_slot", "current_node"]

P = TypeVar("P")

assigned: ContextVar[Slot] = ContextVar("rxdispatch_slot")


@attrs.frozen(slots=True, eq=False)
class Assignment(Generic[P]):
    """
    A claim with a slot on a node, made by ``assign``.

    Attributes:
        claim: The claim.
        slot: The slot, which is released when the claim is settled or lost.
    """

    claim: Claim[P]
    slot: Slot

    @property
    def node(self) -> Node:
        """The node, as it was when the slot was reserved."""
        return self.slot.node


def current_node() -> Node:
    """
    Return the node that ``assign`` chose for the task of the calling handler.

    It works wherever ``current_claim`` does.

    Raises:
        LookupError: If no handler is running here, or its claim did not come through ``assign``.
    """
    try:
        return assigned.get().node
    except LookupError:
        raise LookupError(
            "current_node() must be called from within a handler below assign()"
        ) from None


def claim_and_slot(item: Claim[Any] | Assignment[Any]) -> tuple[Claim[Any], Slot | None]:
    """Return the claim of *item*, and its slot if it has one."""
    if isinstance(item, Assignment):
        return item.claim, item.slot
    return item, None
