"""
``Candidates``: for each pool and labels in use, the nodes that may have room.

INVARIANT. Every node that is in the pool, has the labels and has room is in the set. The set may
hold full nodes too: a walk marks the full nodes that it meets, and the next walk drops them. So a
heartbeat changes no set unless a full node has room again, and picks pay only once for each node
that has filled up, however full the fleet is.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from typing import Final

from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.placement.criteria import Spec

__all__ = ["MAX_SETS", "CandidateSet", "Candidates", "has_room", "same_spec"]

MAX_SETS: Final = 64
"""How many sets are kept; the least recently used one is dropped first."""

# The distance from 2**n to the next prime, by n.
_TO_PRIME: Final = (
    *(1, 1, 1, 3, 1, 5, 3, 3, 1, 9, 7, 5, 3, 17, 27, 3),
    *(1, 29, 3, 21, 7, 17, 15, 9, 43, 35, 15, 29, 3, 11, 3, 11),
)
_READY: Final = NodeStatus.READY


def has_room(node: Node) -> bool:
    """Return whether ``node.room`` is above 0, at half the cost."""
    return node.status is _READY and node.current_jobs < node.capacity


def same_spec(one: Node, other: Node) -> bool:
    """Return whether two nodes have the same pool and labels."""
    # Two versions of one node usually share these objects.
    labels = one.labels is other.labels or one.labels == other.labels
    return labels and one.pool == other.pool


class CandidateSet:
    """
    The ids of the nodes that match pool and labels and may have room, in no order.

    Args:
        spec: Pool and labels.
        nodes: The known nodes by id; a live mapping, which the caller changes.
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
        """Return whether the pool and labels of *node* match."""
        if self._pool is not None and self._pool != node.pool:
            return False
        return not self._items or self._items <= node.labels.items()

    def add(self, node_id: str) -> None:
        """Add an id, unless it is in the set."""
        if node_id not in self._places:
            self._places[node_id] = len(self._ids)
            self._ids.append(node_id)

    def discard(self, node_id: str) -> None:
        """Remove an id, if it is in the set; the last id takes its place."""
        place = self._places.pop(node_id, None)
        if place is not None:
            last = self._ids.pop()
            if last != node_id:
                self._ids[place] = last
                self._places[last] = place

    def walk(self, rng: random.Random) -> Iterator[Node]:
        """
        Yield every node with room once, in random order; a caller may stop at any node.

        The first two are a random pair, each pair equally likely, which is all that the power of
        two choices needs. The step from the first place to the second, repeated modulo a prime,
        reaches all places, so a walk needs neither a shuffled copy nor a set of visited nodes. The
        prime is at most about twice the length.
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
            # The size is read each time, because the caller may change the set between nodes.
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
        """Yield every node with room once, in order from a random place; faster than a walk."""
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
            # A node that has room again must stay, because nothing would add it a second time.
            if node is None or not has_room(node):
                self.discard(one)


class Candidates:
    """
    The sets of candidates in use, each made when it is first asked for.

    Args:
        nodes: The known nodes by id; a live mapping, which the caller changes.
    """

    __slots__ = ("_nodes", "_sets")

    def __init__(self, nodes: Mapping[str, Node]) -> None:
        self._nodes = nodes
        self._sets: OrderedDict[Spec, CandidateSet] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sets)

    def get(self, spec: Spec) -> CandidateSet:
        """Return the candidates of *spec*."""
        sets = self._sets
        found = sets.get(spec)
        if found is None:
            if len(sets) >= MAX_SETS:
                sets.popitem(last=False)
            found = sets[spec] = CandidateSet(spec, self._nodes)
        else:
            sets.move_to_end(spec)
        return found

    def changed(self, previous: Node | None, node: Node | None) -> None:
        """Update the sets after a node was added, replaced or removed (*node* is None)."""
        moved = previous is not None and (node is None or not same_spec(previous, node))
        opened = node is not None and has_room(node)
        for candidates in self._sets.values():
            if opened and node is not None and candidates.wants(node):
                candidates.add(node.id)
            elif moved and previous is not None:
                candidates.discard(previous.id)

    def clear(self) -> None:
        """Drop all sets."""
        self._sets.clear()
