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

    INVARIANT. For each change the replica calls :meth:`changed` before :meth:`publish`, so a
    subscriber that selects a node chooses among the nodes as they are after the change.

    Args:
        selector: Keeps candidates for the criteria in use.
        placements: Forgets the placements on a node once the registry reports its load.
        unsaved: Collects the nodes to save; None if the feed has no snapshot.
        subscribers: The subscribers of ``feed.changes``.
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
        """
        Pass on that a node was added, changed or removed.

        Args:
            previous: The node before the change; None if it was added.
            node: The node after the change; None if it was removed.
        """
        known = node or previous
        assert known is not None
        self._selector.changed(previous, node)
        self._placements.reported(known.id)
        if self._unsaved is not None:
            self._unsaved.add(known.id)

    def replaced(self) -> None:
        """Pass on that the whole fleet was replaced; the replica then publishes each difference."""
        self._selector.clear()
        if self._unsaved is not None:
            self._unsaved.add_all()

    def publish(self, change: NodeChange) -> None:
        """Emit a change to the subscribers."""
        self._subscribers.emit(change)

    def doubt(self, node: str) -> None:
        """Have a node looked up: the feed has missed a change of it, or its ttl has run out."""
        self._doubts.add(node)

    def lapse_at(self, at: float) -> None:
        """Announce that a ttl runs out at *at*, on the loop's clock."""
        self._lapses.announce(at)
