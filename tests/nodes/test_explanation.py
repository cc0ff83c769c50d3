"""``Explanation``: how many nodes each filter rejects."""

from __future__ import annotations

import random

from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.explanation import Explanation, explain
from rxdispatch.nodes.placement.placements import Placements

ORDER = ["pool", "labels", "exclude", "draining", "suspect", "full", "where", "rejecting"]

# Each node violates one more of the criteria below than the next one.
NODES = [
    Node("x", pool="cpu", capacity=0),
    Node("x", pool="gpu", capacity=0, status=NodeStatus.DRAINING),
    Node("x", pool="gpu", labels={"zone": "a"}, capacity=0, status=NodeStatus.DRAINING),
    Node("d", pool="gpu", labels={"zone": "a"}, capacity=0, status=NodeStatus.DRAINING),
    Node("s", pool="gpu", labels={"zone": "a"}, capacity=0, status=NodeStatus.SUSPECT),
    Node("f", pool="gpu", labels={"zone": "a"}, capacity=2, current_jobs=3),
    Node("w", pool="gpu", labels={"zone": "a"}),
    Node("r", pool="gpu", labels={"zone": "a"}),
    Node("g", pool="gpu", labels={"zone": "a", "rack": "3"}),
]


def not_w(node: Node) -> bool:
    """Match any node but w."""
    assert node.room, "a selection calls where only for nodes with room"
    return node.id != "w"


CRITERIA = Criteria(pool="gpu", labels={"zone": "a"}, where=not_w, exclude=["x"])


def placements() -> Placements:
    """Return placements in which node r has just refused several jobs."""
    made = Placements(lambda: 0.0, random.Random(1))
    for _ in range(3):
        made.refused("r")
    return made


def test_a_node_counts_at_the_first_filter_that_rejects_it() -> None:
    """Every filter is named, in order."""
    explanation = explain(NODES, CRITERIA, placements())
    assert Explanation(9, dict.fromkeys(ORDER, 1), 1) == explanation
    assert ORDER == list(explanation.refused)


def test_no_criteria_reject_only_nodes_without_room() -> None:
    """Only nodes without room are rejected; the other filters count 0."""
    explanation = explain(NODES[:3], Criteria(), placements())
    expected = {**dict.fromkeys(ORDER, 0), "draining": 2, "full": 1}
    assert Explanation(3, expected, 0) == explanation
    assert Explanation(0, dict.fromkeys(ORDER, 0), 0) == explain([], CRITERIA, placements())


def test_it_reads_well() -> None:
    """Numbers are aligned, and filters that reject no node are left out."""
    text = "12 nodes:\n 5 in another pool\n 2 without the labels\n 4 full\n 1 eligible"
    refused = {**dict.fromkeys(ORDER, 0), "pool": 5, "labels": 2, "full": 4}
    assert text == str(Explanation(12, refused, 1))
    assert "1 node:\n1 full\n0 eligible" == str(Explanation(1, {"full": 1}, 0))
    everything = str(explain(NODES, CRITERIA, placements()))
    assert 10 == len(everything.splitlines())
