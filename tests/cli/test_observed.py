"""The recent changes of a fleet."""

from __future__ import annotations

import pytest

from rxdispatch.cli.nodes.observed import Observed, of_pool
from rxdispatch.node import ChangeKind, Node, NodeChange


def change(kind: ChangeKind, node: Node | None, previous: Node | None = None) -> NodeChange:
    """Return a change whose number does not matter."""
    return NodeChange(kind, node, previous, "00", 1)


def test_rate() -> None:
    """The rate covers five seconds, or the time so far, and falls to zero without new changes."""
    observed = Observed(0.0)
    node = Node("n1")
    for tick in range(20):
        observed.record(change("updated", node, node), tick * 0.1)
    observed.record(change("synced", None), 2.0)
    assert 10.0 == observed.rate(2.0)
    assert 4.0 == observed.rate(5.0)
    assert 0.0 == observed.rate(60.0)
    assert 20 == observed.changes


A, A2, B = Node("n", pool="a"), Node("n", pool="a", capacity=2), Node("n", pool="b")


@pytest.mark.parametrize(
    ("seen", "told"),
    [
        (change("updated", A2, A), change("updated", A2, A)),
        (change("added", A), change("added", A)),
        (change("removed", A, A), change("removed", A, A)),
        (change("suspect", A, A), change("suspect", A, A)),
        (change("added", B), None),
        (change("removed", B, B), None),
        (change("updated", A, B), change("added", A)),
        (change("updated", B, A), change("removed", A, A)),
        (change("synced", None), change("synced", None)),
    ],
)
def test_of_pool(seen: NodeChange, told: NodeChange | None) -> None:
    """In a single pool, a node that moves counts as one that comes or goes."""
    assert told == of_pool(seen, "a")
    assert seen is of_pool(seen, None)
