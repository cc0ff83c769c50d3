"""``Explanation``: how many nodes each filter of a selection rejects."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

import attrs

from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.placements import Placements

__all__ = ["Explanation", "explain"]

_WORDS: Final = {
    "pool": "in another pool",
    "labels": "without the labels",
    "exclude": "excluded",
    "draining": "draining",
    "suspect": "suspect",
    "full": "full",
    "where": "refused by where",
    "rejecting": "passed over after refusals",
}


@attrs.frozen(slots=True)
class Explanation:
    """
    How many nodes there are, and how many of them each filter rejects.

    Attributes:
        total: Known nodes.
        refused: Nodes rejected by each filter, in the order of the filters: ``pool``, ``labels``,
            ``exclude``, ``draining``, ``suspect``, ``full``, ``where``, ``rejecting``. A node
            counts at the first filter that rejects it. Nodes under ``rejecting`` are still chosen
            if no other node is eligible.
        eligible: Nodes that pass every filter.

    Example:
        >>> print(Explanation(12, {"pool": 5, "full": 4}, 3))
        12 nodes:
         5 in another pool
         4 full
         3 eligible
    """

    total: int
    refused: Mapping[str, int]
    eligible: int

    def __str__(self) -> str:
        lines = [(count, _WORDS[name]) for name, count in self.refused.items() if count]
        lines.append((self.eligible, "eligible"))
        width = len(str(self.total))
        head = f"{self.total} node{'' if self.total == 1 else 's'}:"
        return "\n".join([head, *(f"{count:>{width}} {words}" for count, words in lines)])


def explain(nodes: Iterable[Node], criteria: Criteria, placements: Placements) -> Explanation:
    """Check every node, and count the filter that rejects it."""
    refused = dict.fromkeys(_WORDS, 0)
    total = eligible = 0
    for node in nodes:
        total += 1
        refusal = _refusal(node, criteria, placements)
        if refusal is None:
            eligible += 1
        else:
            refused[refusal] += 1
    return Explanation(total, MappingProxyType(refused), eligible)


def _refusal(node: Node, criteria: Criteria, placements: Placements) -> str | None:
    if criteria.pool is not None and criteria.pool != node.pool:
        return "pool"
    if not criteria.labels.items() <= node.labels.items():
        return "labels"
    if node.id in criteria.exclude:
        return "exclude"
    if node.status is not NodeStatus.READY:
        return node.status.value
    if not node.room:
        return "full"
    # Only now, as in a selection: where may rely on it that the node has room.
    if criteria.where is not None and not criteria.where(node):
        return "where"
    return "rejecting" if placements.rejecting(node.id) else None
