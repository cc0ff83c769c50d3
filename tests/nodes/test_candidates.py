"""``Candidates``: the nodes that match pool and labels and may have room."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest

from rxdispatch.node import CAPACITY_LIMIT, Node, NodeStatus
from rxdispatch.nodes.placement import candidates as module
from rxdispatch.nodes.placement.candidates import (
    MAX_SETS,
    Candidates,
    CandidateSet,
    has_room,
    same_spec,
)
from rxdispatch.nodes.placement.criteria import Criteria

ANY = Criteria()._spec
GPU = Criteria(pool="gpu")._spec
ZONE = Criteria(labels={"zone": "a"})._spec


class Cache:
    """Nodes, and candidates that are updated with every change."""

    def __init__(self, *nodes: Node) -> None:
        self.nodes = {node.id: node for node in nodes}
        self.candidates = Candidates(self.nodes)
        self.rng = random.Random(3)

    def put(self, node: Node) -> None:
        """Add or replace a node."""
        previous = self.nodes.get(node.id)
        self.nodes[node.id] = node
        self.candidates.changed(previous, node)

    def remove(self, node_id: str) -> None:
        """Remove a node."""
        self.candidates.changed(self.nodes.pop(node_id), None)

    def walked(self, spec: Any = ANY) -> list[str]:
        """Return the ids that a walk and a scan yield, which must be the same."""
        candidates = self.candidates.get(spec)
        found = sorted(node.id for node in candidates.walk(self.rng))
        assert found == sorted(node.id for node in candidates.scan(self.rng))
        return found


def test_a_set_holds_what_matches_and_has_room() -> None:
    """A set is selected by pool, by labels, by both or by neither."""
    cache = Cache(
        Node("a", pool="gpu"),
        Node("b", pool="gpu", labels={"zone": "a", "rack": "1"}),
        Node("c", labels={"zone": "a"}),
        Node("d", labels={"zone": "b"}),
        Node("e", pool="gpu", capacity=0),
    )
    assert ["a", "b", "c", "d"] == cache.walked()
    assert ["a", "b"] == cache.walked(GPU)
    assert ["b", "c"] == cache.walked(ZONE)
    assert ["b"] == cache.walked(Criteria(pool="gpu", labels={"zone": "a"})._spec)
    assert [] == cache.walked(Criteria(pool="tpu")._spec)


def test_nodes_come_move_and_go() -> None:
    """Every set that is in use is updated."""
    cache = Cache(Node("a", pool="gpu"))
    assert [["a"], ["a"], []] == [cache.walked(spec) for spec in (ANY, GPU, ZONE)]
    cache.put(Node("b", pool="gpu", labels={"zone": "a"}))
    assert [["a", "b"], ["a", "b"], ["b"]] == [cache.walked(spec) for spec in (ANY, GPU, ZONE)]
    cache.put(Node("b", labels={"zone": "a"}))
    assert [["a", "b"], ["a"], ["b"]] == [cache.walked(spec) for spec in (ANY, GPU, ZONE)]
    # The node is full when it moves, and has room again later.
    cache.put(Node("b", pool="gpu", current_jobs=1))
    assert [["a"], ["a"], []] == [cache.walked(spec) for spec in (ANY, GPU, ZONE)]
    cache.put(Node("b", pool="gpu"))
    assert [["a", "b"], ["a", "b"], []] == [cache.walked(spec) for spec in (ANY, GPU, ZONE)]
    cache.remove("a")
    assert [["b"], ["b"], []] == [cache.walked(spec) for spec in (ANY, GPU, ZONE)]
    cache.remove("b")
    assert [[], [], []] == [cache.walked(spec) for spec in (ANY, GPU, ZONE)]


@pytest.mark.parametrize("sweep", [False, True])
def test_a_full_node_leaves_and_comes_back(sweep: bool) -> None:
    """The next walk drops a full node that a walk has met, unless it has room again."""
    cache = Cache(Node("a"), Node("b"))
    cache.walked()
    found = cache.candidates.get(ANY)
    cache.put(Node("a", current_jobs=1))
    assert 2 == len(found)
    assert ["b"] == sorted(node.id for node in found.walk(cache.rng))
    if sweep:
        next(found.walk(cache.rng))
        assert 1 == len(found)
    cache.put(Node("a"))
    assert 2 == len(found)
    assert ["a", "b"] == cache.walked()


@pytest.mark.parametrize("status", [NodeStatus.DRAINING, NodeStatus.SUSPECT])
def test_a_node_that_is_not_ready_has_no_room(status: NodeStatus) -> None:
    """A draining or suspect node is left out until it is ready again."""
    cache = Cache(node := Node("a", capacity=2))
    cache.walked()
    cache.put(node._marked(status))
    assert [] == cache.walked()
    cache.put(node)
    assert ["a"] == cache.walked()


def test_a_removed_node_is_dropped_at_once() -> None:
    """Fleets whose ids never repeat leave nothing behind in an unused set."""
    cache = Cache()
    found = cache.candidates.get(ANY)
    for n in range(100):
        cache.put(Node(f"n{n}"))
        cache.remove(f"n{n}")
    assert 0 == len(found)


def test_a_walk_may_be_left_and_its_set_changed() -> None:
    """The consumer of a walk may remove a node during the walk."""
    cache = Cache(*(Node(f"n{n}") for n in range(20)))
    for style in ("walk", "scan"):
        for node in getattr(cache.candidates.get(ANY), style)(cache.rng):
            if node.id in cache.nodes:
                cache.remove(node.id)
                break
        for node in getattr(cache.candidates.get(ANY), style)(cache.rng):
            cache.put(Node(node.id, current_jobs=1))
            cache.remove(node.id)
            if len(cache.nodes) < 12:
                break
    assert sorted(cache.nodes) == cache.walked()


def test_any_two_nodes_may_come_first() -> None:
    """All pairs of first nodes are about equally frequent, as power of two choices needs."""
    rng = random.Random(11)
    for size in (2, 3, 5, 8, 11):
        nodes = {f"n{n}": Node(f"n{n}") for n in range(size)}
        found = CandidateSet(ANY, nodes)
        pairs: Counter[tuple[str, str]] = Counter()
        for _ in range(rounds := 200 * size * size):
            walk = found.walk(rng)
            pairs[next(walk).id, next(walk).id] += 1
        assert size * (size - 1) == len(pairs)
        expected = rounds / len(pairs)
        assert max(pairs.values()) < 1.3 * expected
        assert min(pairs.values()) > 0.7 * expected


def test_a_walk_comes_by_every_node_once() -> None:
    """A walk visits each node once, for every size, even if most nodes have filled up since."""
    rng = random.Random(13)
    for size in range(70):
        nodes = {f"n{n}": Node(f"n{n}") for n in range(size)}
        found = CandidateSet(ANY, nodes)
        for _ in range(10):
            assert sorted(nodes) == sorted(node.id for node in found.walk(rng))
        for n in range(0, size, 7):
            nodes[f"n{n}"] = Node(f"n{n}", current_jobs=1)
        left = sorted(node.id for node in nodes.values() if node.room)
        for _ in range(3):
            assert left == sorted(node.id for node in found.walk(rng))
        assert len(left) == len(found)


def test_a_scan_starts_anywhere() -> None:
    """A scan starts at a random node, so that ties are decided by chance."""
    found = CandidateSet(ANY, {f"n{n}": Node(f"n{n}") for n in range(10)})
    rng = random.Random(5)
    assert 10 == len({next(found.scan(rng)).id for _ in range(300)})


def test_steps_are_taken_modulo_a_prime() -> None:
    """Every size has a prime as its modulus, which lets a walk visit every place."""
    lacking: tuple[int, ...] = vars(module)["_TO_PRIME"]
    for exponent, more in enumerate(lacking):
        prime = (1 << exponent) + more
        assert all(prime % n for n in range(2, int(prime**0.5) + 1) if n < 70000)
    assert CAPACITY_LIMIT.bit_length() < len(lacking)


def test_the_set_not_used_for_longest_goes_first() -> None:
    """The number of sets is bounded, and a set that is in use is kept."""
    cache = Cache(Node("a"))
    kept = cache.candidates.get(ANY)
    for n in range(3 * MAX_SETS):
        cache.candidates.get((f"pool-{n}", frozenset()))
        assert kept is cache.candidates.get(ANY)
        assert len(cache.candidates) <= MAX_SETS
    cache.candidates.clear()
    assert kept is not cache.candidates.get(ANY)


def test_short_cuts_agree_with_the_node() -> None:
    """The fast checks of room, and of pool and labels, agree with the properties."""
    one = Node("a", capacity=2, labels={"zone": "a"})
    for node in (
        one,
        Node("a", capacity=2, current_jobs=2),
        Node("a", capacity=2, current_jobs=5),
        Node("a", capacity=0),
        one._marked(NodeStatus.SUSPECT),
    ):
        assert (node.room > 0) == has_room(node)
    assert same_spec(one, one._renewed(2, 2))
    assert same_spec(one, Node("b", labels={"zone": "a"}))
    assert not same_spec(one, Node("a", labels={"zone": "b"}))
    assert not same_spec(one, Node("a", pool="gpu", labels={"zone": "a"}))
