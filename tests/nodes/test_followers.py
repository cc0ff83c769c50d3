"""``Followers``: each part of a feed is updated with the replica, and subscribers come last."""

from __future__ import annotations

import random
from typing import Any

from rxdispatch.node import Node, NodeChange
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.placements import Placements
from rxdispatch.nodes.placement.selector import Selector
from rxdispatch.nodes.records import NodeRow
from rxdispatch.nodes.replica.doubts import Doubts
from rxdispatch.nodes.replica.followers import Followers
from rxdispatch.nodes.replica.lapse_timer import LapseTimer
from rxdispatch.nodes.replica.replica import Replica
from rxdispatch.nodes.replica.unsaved import Unsaved
from rxdispatch.relay import Relay

EPOCH = b"1" * 16


class Parts:
    """A replica with everything that follows it."""

    def __init__(self, *, snapshot: bool = True) -> None:
        nodes: dict[str, Node] = {}
        self.placements = Placements(lambda: 0.0)
        self.selector = Selector(nodes, self.placements, random.Random(1))
        self.unsaved = Unsaved()
        self.subscribers: Relay[NodeChange] = Relay("test")
        self.doubts = Doubts()
        followers = Followers(
            selector=self.selector,
            placements=self.placements,
            unsaved=self.unsaved if snapshot else None,
            subscribers=self.subscribers,
            doubts=self.doubts,
            lapses=LapseTimer(),
        )
        self.replica = Replica(nodes, lambda: 0.0, followers)
        self.replica.replace(EPOCH, [], 0)

    def add(self, name: str, seq: int, **fields: Any) -> None:
        """Add or update a node."""
        node = Node(name, seq=seq, **fields)
        self.replica.fill([NodeRow(name, seq, node, 0, 30.0)], seq, complete=True)


async def test_a_subscriber_chooses_among_the_changed_nodes() -> None:
    """A subscriber sees updated candidates, without the placements on the changed node."""
    parts, picked, loads = Parts(), list[list[str]](), list[int]()
    assert [] == parts.selector.pick(Criteria())

    def choose(_: NodeChange) -> None:
        picked.append([node.id for node in parts.selector.pick(Criteria())])
        loads.append(parts.placements.load("a"))

    parts.subscribers.observable.subscribe(choose)
    parts.placements.placed("a")
    parts.add("a", 1)
    parts.add("a", 2, current_jobs=1)
    assert [["a"], []] == picked
    assert [0, 0] == loads


async def test_what_the_snapshot_lacks() -> None:
    """Changes mark single nodes as unsaved, and a relist the whole fleet."""
    parts = Parts()
    parts.unsaved.take()
    parts.add("a", 1)
    assert {"a"} == parts.unsaved.take()
    parts.replica.replace(EPOCH, [], 2)
    assert parts.unsaved.take() is None


async def test_without_a_snapshot() -> None:
    """Ids of changed nodes are not collected."""
    parts = Parts(snapshot=False)
    parts.unsaved.take()
    parts.add("a", 1)
    assert set() == parts.unsaved.take()


async def test_doubts_wake_the_sync_task() -> None:
    """A heartbeat that does not follow the known version causes a look-up."""
    parts = Parts()
    assert not parts.doubts
    parts.replica.fill([NodeRow("a", 1, None, 7, 30.0)], 1)
    assert parts.doubts.wake.is_set()
    assert ("a",) == parts.doubts.take()
    assert not parts.doubts
