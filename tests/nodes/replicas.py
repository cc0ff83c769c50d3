"""A replica under a test's control, the rows that it applies, and what it reports."""

from __future__ import annotations

from typing import Any

from rxdispatch.node import Node, NodeChange
from rxdispatch.nodes.records import Message, NodeRow
from rxdispatch.nodes.replica.followers import Followers
from rxdispatch.nodes.replica.replica import Replica

__all__ = [
    "FIRST",
    "SECOND",
    "Clock",
    "Watcher",
    "grave",
    "made",
    "message",
    "record",
    "touch",
]

FIRST, SECOND = b"1" * 16, b"2" * 16


class Watcher(Followers):
    """Records what the replica reports, and builds a mirror of the nodes from that alone."""

    def __init__(self) -> None:
        self.mirror: dict[str, Node] = {}
        self.changes: list[NodeChange] = []
        self.doubts: list[str] = []
        self.announced: list[float] = []
        self.replica: Replica | None = None

    def changed(self, previous: Node | None, node: Node | None) -> None:
        """Update the mirror."""
        known = node or previous
        assert known is not None
        # The mirror has the node as it was before the change.
        assert self.mirror.get(known.id) is previous
        if node is None:
            del self.mirror[known.id]
        else:
            self.mirror[known.id] = node

    def replaced(self) -> None:
        """Copy the nodes of the replica."""
        assert self.replica is not None
        self.mirror = dict(self.replica.nodes)

    def publish(self, change: NodeChange) -> None:
        """Record the change."""
        self.changes.append(change)

    def doubt(self, node: str) -> None:
        """Record the id."""
        self.doubts.append(node)

    def lapse_at(self, at: float) -> None:
        """Record the time."""
        self.announced.append(at)

    def kinds(self) -> list[tuple[str, str, int]]:
        """Return the published changes, and clear them."""
        changes, self.changes = self.changes, []
        return [(c.kind, c.node.id if c.node else "", c.seq) for c in changes]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(epoch: bytes = FIRST) -> tuple[Replica, Watcher, Clock]:
    """Return an empty replica of the epoch *epoch*."""
    watcher, clock = Watcher(), Clock()
    replica = Replica({}, clock, watcher)
    watcher.replica = replica
    replica.replace(epoch, [], 0)
    return replica, watcher, clock


def record(
    name: str,
    seq: int,
    version: int = 1,
    *,
    ttl: float = 30.0,
    birth: int = 0,
    silence: float = 0.0,
    **fields: Any,
) -> NodeRow:
    """Return a row with a node."""
    node = Node(name, version=version, seq=seq, **fields)
    return NodeRow(name, seq, node, 0, ttl, birth, silence)


def touch(name: str, seq: int, version: int, *, ttl: float = 30.0) -> NodeRow:
    """Return a heartbeat without news."""
    return NodeRow(name, seq, None, version, ttl)


def grave(name: str, seq: int) -> NodeRow:
    """Return a removal."""
    return NodeRow(name, seq, None, 0, 0.0)


def message(*rows: NodeRow, epoch: bytes = FIRST, bad: int = 0) -> Message:
    """Return a message with these rows."""
    return Message(epoch, rows[0].seq, len(rows) + bad, list(rows), bad, rows[-1].seq)
