"""
Views: for the criteria in use, the nodes that may have room.

Invariant: every node that is in the pool, has the labels and has room is in the view. The view
may hold full ones as well: whoever comes across them takes note, and the next walk drops them.
So a heartbeat changes no view unless a full node has got room again, and a pick pays only once
for every node that has filled up, however full the fleet is.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Final

from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.placement.criteria import Spec

__all__ = ["MAX_VIEWS", "View", "Views", "has_room", "same_spec"]

MAX_VIEWS: Final = 64
"""Views that are kept; the one not used for longest goes first."""

# What 2**n lacks to the next prime.
_TO_PRIME: Final = (
    *(1, 1, 1, 3, 1, 5, 3, 3, 1, 9, 7, 5, 3, 17, 27, 3),
    *(1, 29, 3, 21, 7, 17, 15, 9, 43, 35, 15, 29, 3, 11, 3, 11),
)
_READY: Final = NodeStatus.READY


def has_room(node: Node) -> bool:
    """Return whether ``node.room`` is more than 0; half the work."""
    return node.status is _READY and node.current_jobs < node.capacity


def same_spec(one: Node, other: Node) -> bool:
    """Return whether two nodes have pool and labels in common."""
    # Of the same node they mostly are the same objects.
    labels = one.labels is other.labels or one.labels == other.labels
    return labels and one.pool == other.pool


class View:
    """
    The ids of nodes that match pool and labels and may have room, in no order.

    Args:
        spec: Pool and labels.
        nodes: The nodes as they are known, by id; it is the caller's, and live.
    """

    __slots__ = ("_ids", "_items", "_nodes", "_places", "_pool", "_stale")

    def __init__(self, spec: Spec, nodes: Mapping[str, Node]) -> None:
        self._pool = spec[0]
        self._items = spec[1]
        self._nodes = nodes
        self._ids = [node.id for node in nodes.values() if has_room(node) and self.wants(node)]
        self._places = {one: place for place, one in enumerate(self._ids)}
        self._stale: list[str] = []

    def __len__(self) -> int:
        return len(self._ids)

    def wants(self, node: Node) -> bool:
        """Return whether pool and labels of *node* match."""
        if self._pool is not None and self._pool != node.pool:
            return False
        return not self._items or self._items <= node.labels.items()

    def add(self, node_id: str) -> None:
        """Add an id, unless it is there."""
        if node_id not in self._places:
            self._places[node_id] = len(self._ids)
            self._ids.append(node_id)

    def discard(self, node_id: str) -> None:
        """Remove an id, if it is there; the last one takes its place."""
        place = self._places.pop(node_id, None)
        if place is not None:
            last = self._ids.pop()
            if last != node_id:
                self._ids[place] = last
                self._places[last] = place

    def walk(self, rng: random.Random) -> Iterator[Node]:
        """
        Yield every node with room once, in random order; to be left at any time.

        The first two are any two, all pairs alike: power of two choices needs no more. Steps of
        the length between them, modulo a prime, come by every other place, so that a walk needs
        neither a shuffled copy nor a set of what it has seen. The prime is about twice the
        length at most.
        """
        if self._stale:
            self._sweep()
        ids, nodes = self._ids, self._nodes
        size = len(ids)
        exponent = size.bit_length()
        prime = (1 << exponent) + _TO_PRIME[exponent]
        place = int(rng.random() * size)
        second = place + 1 + int(rng.random() * (size - 1))
        step = ((second if second < size else second - size) - place) % prime or 1
        for _ in range(prime):
            # Not against the size at the start: whoever gets a node may change the view.
            if place < len(ids):
                node = nodes.get(ids[place])
                if node is not None and node.status is _READY and node.current_jobs < node.capacity:
                    yield node
                else:
                    self._stale.append(ids[place])
            place += step
            if place >= prime:
                place -= prime

    def scan(self, rng: random.Random) -> Iterator[Node]:
        """Yield every node with room once, in one round from a random place: faster than a walk."""
        if self._stale:
            self._sweep()
        ids, nodes = self._ids, self._nodes
        start = int(rng.random() * len(ids))
        for one in chain(islice(ids, start, None), islice(ids, start)):
            node = nodes.get(one)
            if node is not None and node.status is _READY and node.current_jobs < node.capacity:
                yield node
            else:
                self._stale.append(one)

    def _sweep(self) -> None:
        stale, self._stale = self._stale, []
        for one in stale:
            node = self._nodes.get(one)
            # It may have got room again, and would not be added a second time.
            if node is None or not has_room(node):
                self.discard(one)


class Views:
    """
    The views in use, each made when it is first asked for.

    Args:
        nodes: The nodes as they are known, by id; it is the caller's, and live.
    """

    __slots__ = ("_nodes", "_views")

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._views: OrderedDict[Spec, View] = OrderedDict()

    def __len__(self) -> int:
        return len(self._views)

    def get(self, spec: Spec) -> View:
        """Return the view of *spec*."""
        views = self._views
        view = views.get(spec)
        if view is None:
            if len(views) >= MAX_VIEWS:
                views.popitem(last=False)
            view = views[spec] = View(spec, self._nodes)
        else:
            views.move_to_end(spec)
        return view

    def changed(self, previous: Node | None, node: Node | None) -> None:
        """Keep the views true to a change of the nodes, which has just been made."""
        moved = previous is not None and (node is None or not same_spec(previous, node))
        opened = node is not None and has_room(node)
        for view in self._views.values():
            if opened and node is not None and view.wants(node):
                view.add(node.id)
            elif moved and previous is not None:
                view.discard(previous.id)

    def clear(self) -> None:
        """Drop all views."""
        self._views.clear()
