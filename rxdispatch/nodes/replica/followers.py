"""``Followers``: everything in a feed that is updated with the replica."""

from __future__ import annotations

from rxdispatch.node import Node, NodeChange
from rxdispatch.nodes.placement.placements import Placements
from rxdispatch.nodes.placement.selector import Selector
from rxdispatch.nodes.replica.doubts import Doubts
from rxdispatch.nodes.replica.lapse_timer import LapseTimer
from rxdispatch.nodes.replica.unsaved import Unsaved
from rxdispatch.relay import Relay

__all__ = ["Followers"]


class Followers:
    """
    Hands what happens to the replica to each part of the feed that depends on it.

    INVARIANT. For each change the replica calls :meth:`changed` before :meth:`publish`: a
    subscriber that selects a node chooses among the nodes as they are after the change.

    Args:
        selector: Keeps candidates for the criteria in use.
        placements: Forgets a placement once its node reports.
        unsaved: Collects what the snapshot lacks; None where there is none.
        subscribers: Those of ``feed.changes``.
        doubts: Collects the nodes to look up.
        lapses: Fires when the next ttl runs out.
    """

    def __init__(
        self,
        *,
        selector: Selector,
        placements: Placements,
        unsaved: Unsaved | None,
        subscribers: Relay[NodeChange],
        doubts: Doubts,
        lapses: LapseTimer,
    ) -> None:
        self._selector = selector
        self._placements = placements
        self._unsaved = unsaved
        self._subscribers = subscribers
        self._doubts = doubts
        self._lapses = lapses

    def changed(self, previous: Node | None, node: Node | None) -> None:
        """A node was added (*previous* is None), replaced, or removed (*node* is None)."""
        known = node or previous
        assert known is not None
        self._selector.changed(previous, node)
        self._placements.reported(known.id)
        if self._unsaved is not None:
            self._unsaved.add(known.id)

    def replaced(self) -> None:
        """The whole fleet was read again; its differences are published one by one."""
        self._selector.clear()
        if self._unsaved is not None:
            self._unsaved.add_all()

    def publish(self, change: NodeChange) -> None:
        """Emit a change to the subscribers."""
        self._subscribers.emit(change)

    def doubt(self, node: str) -> None:
        """Have a node looked up: a change of it was missed, or its ttl has run out."""
        self._doubts.add(node)

    def lapse_at(self, at: float) -> None:
        """The next ttl runs out at *at*, on the loop's clock."""
        self._lapses.announce(at)
