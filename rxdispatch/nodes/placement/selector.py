"""``Selector``: chooses nodes by criteria, from memory, without a call to the server."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping
from typing import Final

from rxdispatch.checks import integer
from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.placement.candidates import Candidates, has_room
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.explanation import Explanation, explain
from rxdispatch.nodes.placement.placements import Placements
from rxdispatch.nodes.placement.strategies import Jobs

__all__ = ["Selector"]

_READY: Final = NodeStatus.READY


class Selector:
    """
    Filters and ranks the nodes of a replica.

    The filters are pool, labels, exclude, draining, suspect, full, where and rejecting; then the
    strategy of the criteria ranks the nodes. The recent placements of this process count as load,
    but never make a node full: only the server decides that.

    Args:
        nodes: The nodes by id; a live mapping, whose owner calls :meth:`changed` after each change.
        placements: The recent placements and refusals of this process.
        rng: The source of randomness.

    Example:
        >>> import time
        >>> nodes = {"a": Node("a", capacity=2), "b": Node("b", pool="gpu", capacity=2)}
        >>> selector = Selector(nodes, Placements(time.monotonic), random.Random(1))
        >>> [node.id for node in selector.pick(Criteria(pool="gpu"))]
        ['b']
    """

    __slots__ = ("_candidates", "_nodes", "_placements", "_rng")

    def __init__(
        self, nodes: Mapping[str, Node], placements: Placements, rng: random.Random
    ) -> None:
        self._nodes = nodes
        self._placements = placements
        self._rng = rng
        self._candidates = Candidates(nodes)

    def changed(self, previous: Node | None, node: Node | None) -> None:
        """
        Update the candidates after a change of the nodes.

        Args:
            previous: The node before the change; None if it was added.
            node: The node after the change; None if it was removed.
        """
        if previous is not None and node is not None:
            # Nearly all changes are heartbeats, and nearly all heartbeats end here.
            if (
                previous.labels is node.labels
                and previous.pool == node.pool
                and (
                    (previous.status is _READY and previous.current_jobs < previous.capacity)
                    or not has_room(node)
                )
            ):
                return
        elif previous is not None:
            self._placements.forget(previous.id)
        self._candidates.changed(previous, node)

    def clear(self) -> None:
        """Drop all candidates, because any node may have changed; they are rebuilt on demand."""
        self._candidates.clear()

    def pick(self, criteria: Criteria, count: int = 1) -> list[Node]:
        """
        Return the nodes to try, the best first.

        Args:
            criteria: What the nodes must match.
            count: The most nodes to return, all different; a reservation tries the others if the
                first refuses.

        Returns:
            Nodes that have room according to memory; possibly none. Nodes that keep refusing are
            returned only if there are no others.

        Raises:
            ConfigError: If *count* is not an int >= 1.
            Exception: Whatever ``where`` or a cost function raises.
        """
        integer("count", count)
        candidates = self._candidates.get(criteria._spec)
        scans = criteria._scans
        nodes = candidates.scan(self._rng) if scans else candidates.walk(self._rng)
        if criteria.exclude or criteria.where is not None:
            nodes = _allowed(nodes, criteria)
        jobs = self._jobs()
        if not self._placements.refusals:
            return criteria._choose(nodes, count, jobs)
        rejecting: list[Node] = []
        chosen = criteria._choose(self._accepting(nodes, rejecting), count, jobs)
        return chosen or criteria._choose(iter(rejecting), count, jobs)

    def explain(self, criteria: Criteria) -> Explanation:
        """Return how many nodes each filter rejects; looks at every node."""
        return explain(self._nodes.values(), criteria, self._placements)

    def _jobs(self) -> Jobs:
        young, old = self._placements.recent()
        if not young and not old:
            return _known_jobs
        return lambda node: node.current_jobs + young.get(node.id, 0) + old.get(node.id, 0)

    def _accepting(self, nodes: Iterator[Node], rejecting: list[Node]) -> Iterator[Node]:
        for node in nodes:
            if self._placements.rejecting(node.id):
                rejecting.append(node)
            else:
                yield node


def _known_jobs(node: Node) -> int:
    return node.current_jobs


def _allowed(nodes: Iterator[Node], criteria: Criteria) -> Iterator[Node]:
    where, exclude = criteria.where, criteria.exclude
    for node in nodes:
        if node.id not in exclude and (where is None or where(node)):
            yield node
