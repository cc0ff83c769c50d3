"""``Selector``: each strategy picks the same nodes as a scan of the whole fleet."""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from rxdispatch.errors import ConfigError
from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.placements import GENERATION, Placements
from rxdispatch.nodes.placement.selector import Selector


class Fleet:
    """A selector and the nodes that it selects from."""

    def __init__(self, *nodes: Node, seed: int = 1) -> None:
        self.now = 0.0
        self.nodes: dict[str, Node] = {}
        self.placements = Placements(lambda: self.now, random.Random(seed))
        self.selector = Selector(self.nodes, self.placements, random.Random(seed))
        for node in nodes:
            self.put(node)

    def put(self, node: Node) -> None:
        """Add or replace a node."""
        previous = self.nodes.get(node.id)
        self.nodes[node.id] = node
        self.selector.changed(previous, node)

    def remove(self, node_id: str) -> None:
        """Remove a node, if it exists."""
        self.selector.changed(self.nodes.pop(node_id), None)

    def pick(self, count: int = 1, **criteria: Any) -> str:
        """Return the ids of the picked nodes."""
        return " ".join(node.id for node in self.selector.pick(Criteria(**criteria), count))


def young(node: Node) -> bool:
    """Match by state."""
    return "old" not in node.state


def large(node: Node) -> bool:
    """Match by capacity."""
    return node.capacity > 1


def jobs_most_of_all(node: Node, load: float) -> float:
    """A cost function."""
    return node.capacity * load


def test_filters_rule_out() -> None:
    """Each filter excludes nodes."""
    fleet = Fleet(
        Node("pool", pool="cpu", labels={"zone": "a"}),
        Node("labels", pool="gpu", labels={"zone": "b"}),
        Node("where", pool="gpu", labels={"zone": "a"}, state={"old": True}),
        Node("exclude", pool="gpu", labels={"zone": "a"}),
        Node("draining", pool="gpu", labels={"zone": "a"}, status=NodeStatus.DRAINING),
        Node("suspect", pool="gpu", labels={"zone": "a"}, status=NodeStatus.SUSPECT),
        Node("full", pool="gpu", labels={"zone": "a"}, current_jobs=1),
        Node("good", pool="gpu", labels={"zone": "a"}),
    )
    criteria: dict[str, Any] = {
        "pool": "gpu",
        "labels": {"zone": "a"},
        "where": young,
        "exclude": ["exclude"],
    }
    for strategy in ("power_of_two", "least_loaded", "bin_pack", "spread"):
        assert "good" == fleet.pick(9, strategy=strategy, **criteria)
    assert "good" == fleet.pick(9, strategy="sticky", key="k", **criteria)
    fleet.remove("good")
    assert "" == fleet.pick(9, **criteria)


def test_where_is_asked_only_about_nodes_that_meet_the_rest() -> None:
    """``where`` may be slow, or fail on nodes of another kind, so it is asked last."""
    fleet = Fleet(
        Node("a", pool="gpu", state={"memory": 8}),
        Node("b", pool="gpu", state={"memory": 80}),
        Node("c"),
        Node("d", pool="gpu", current_jobs=1),
        Node("e", pool="gpu"),
    )
    asked: Counter[str] = Counter()

    def enough(node: Node) -> bool:
        asked[node.id] += 1
        return bool(node.state["memory"] > 40)

    assert "b" == fleet.pick(pool="gpu", where=enough, exclude=["e"])
    assert {"a": 1, "b": 1} == asked
    with pytest.raises(KeyError, match="memory"):
        fleet.pick(pool="gpu", where=enough, strategy="spread")
    assert "b" == fleet.pick(pool="gpu", where=enough, exclude=["e"])


@pytest.mark.parametrize("count", [0, -1, True, 1.0, None])
def test_count_must_be_positive(count: Any) -> None:
    """A count of 0 is refused."""
    with pytest.raises(ConfigError, match="count must be an int >= 1"):
        Fleet(Node("a")).selector.pick(Criteria(), count)


def test_own_placements_are_load_until_they_are_reported() -> None:
    """The placements make no node full."""
    fleet = Fleet(Node("a", capacity=4), Node("b", capacity=4, current_jobs=2))
    assert "a" == fleet.pick()
    for _ in range(3):
        fleet.placements.placed("a")
    assert "b" == fleet.pick()
    fleet.placements.placed("a")
    fleet.remove("b")
    assert "a" == fleet.pick()
    fleet.put(Node("b", capacity=4, current_jobs=3))
    assert "b" == fleet.pick()
    fleet.placements.reported("a")
    assert "a" == fleet.pick()


def test_own_placements_are_not_counted_forever() -> None:
    """A node whose heartbeat never changes is chosen again."""
    fleet = Fleet(Node("a", capacity=4), Node("b", capacity=4, current_jobs=2))
    for _ in range(3):
        fleet.placements.placed("a")
    assert "b" == fleet.pick()
    fleet.now += 2 * GENERATION
    assert "a" == fleet.pick()


@pytest.mark.parametrize("strategy", ["power_of_two", "least_loaded"])
def test_a_node_that_keeps_refusing_is_passed_over(strategy: Any) -> None:
    """A node that keeps refusing is chosen only if there is no other."""
    fleet = Fleet(Node("a", capacity=4), Node("b", capacity=4, current_jobs=3))
    for _ in range(3):
        assert "a" == fleet.pick(strategy=strategy)
        fleet.placements.refused("a")
    assert "b" == fleet.pick(2, strategy=strategy)
    assert "a" == fleet.pick(2, strategy=strategy, exclude=["b"])
    assert 1 == fleet.selector.explain(Criteria()).refused["rejecting"]
    fleet.now += 0.3
    assert "a" == fleet.pick(strategy=strategy)


def test_a_node_that_comes_back_is_not_what_it_was() -> None:
    """Its earlier placements and refusals do not count any more."""
    fleet = Fleet(Node("a", capacity=4), Node("b", capacity=4, current_jobs=3))
    for _ in range(3):
        fleet.placements.placed("a")
        fleet.placements.refused("a")
    fleet.remove("a")
    fleet.put(Node("a", capacity=4))
    assert "a" == fleet.pick()


def test_work_is_spread_over_a_fleet_of_equals() -> None:
    """With two choices, no node gets much more than its share."""
    fleet = Fleet(*(Node(f"n{n}", capacity=100) for n in range(20)))
    got: Counter[str] = Counter()
    for _ in range(1000):
        picked = fleet.pick()
        fleet.placements.placed(picked)
        got[picked] += 1
    assert 20 == len(got)
    assert max(got.values()) - min(got.values()) <= 10


def test_clear_drops_all_candidates() -> None:
    """All candidates are dropped, even after changes that the selector did not see."""
    fleet = Fleet(Node("a"))
    assert "a" == fleet.pick()
    fleet.nodes.clear()
    fleet.nodes["b"] = Node("b")
    fleet.selector.clear()
    assert "b" == fleet.pick()


IDS = [f"n{n}" for n in range(12)]
LABELS = [{}, {"zone": "a"}, {"zone": "b"}, {"zone": "a", "rack": "1"}]
NODES = st.builds(
    Node,
    st.sampled_from(IDS),
    pool=st.sampled_from(["default", "gpu"]),
    labels=st.sampled_from(LABELS),
    capacity=st.integers(0, 3),
    current_jobs=st.integers(0, 3),
    status=st.sampled_from([NodeStatus.READY, *NodeStatus]),
)
STRATEGIES: list[dict[str, Any]] = [
    {"strategy": "power_of_two"},
    {"strategy": "least_loaded"},
    {"strategy": "bin_pack"},
    {"strategy": "spread"},
    {"strategy": "sticky", "key": "k"},
    {"strategy": jobs_most_of_all},
]


def asked_for(strategy: dict[str, Any], **others: Any) -> Criteria:
    """Return criteria with a strategy, its key, and other arguments."""
    return Criteria._of(**strategy, **others)


CRITERIA = st.builds(
    asked_for,
    st.sampled_from(STRATEGIES),
    pool=st.sampled_from([None, "default", "gpu", "none"]),
    labels=st.sampled_from(LABELS),
    where=st.sampled_from([None, large]),
    exclude=st.sampled_from([(), IDS[:3], IDS[3:]]),
)


class Naive:
    """A scan of every node, which finds what should be picked."""

    def __init__(self, fleet: Fleet, criteria: Criteria) -> None:
        self.placements = fleet.placements
        self.refused = dict.fromkeys(
            ["pool", "labels", "exclude", "draining", "suspect", "full", "where", "rejecting"], 0
        )
        self.eligible: dict[str, Node] = {}
        self.rejecting: dict[str, Node] = {}
        for node in fleet.nodes.values():
            why = self.why(node, criteria)
            if why is None:
                self.eligible[node.id] = node
            else:
                self.refused[why] += 1
                if why == "rejecting":
                    self.rejecting[node.id] = node

    def why(self, node: Node, criteria: Criteria) -> str | None:
        """Return the first filter that rejects a node."""
        checks = {
            "pool": criteria.pool in (None, node.pool),
            "labels": all(node.labels.get(k) == v for k, v in criteria.labels.items()),
            "exclude": node.id not in criteria.exclude,
            "draining": node.status != "draining",
            "suspect": node.status != "suspect",
            "full": node.room > 0,
            "where": criteria.where is None or criteria.where(node),
            "rejecting": not self.placements.rejecting(node.id),
        }
        return next((name for name, good in checks.items() if not good), None)

    def cost(self, node: Node, strategy: Any) -> Any:
        """Return what the nodes are ordered by; None if the order is random."""
        jobs = node.current_jobs + self.placements.load(node.id)
        load = jobs / node.capacity
        if callable(strategy):
            return strategy(node, load)
        return {
            "least_loaded": load,
            "bin_pack": (load >= 1, load if load >= 1 else -load),
            "spread": (load >= 1, jobs),
        }.get(strategy)


class Changes(RuleBasedStateMachine):
    """Adds, changes and removes nodes in any order, and picks in between."""

    def __init__(self) -> None:
        super().__init__()
        self.fleet = Fleet(seed=5)

    @rule(nodes=st.lists(NODES, max_size=8))
    def put(self, nodes: list[Node]) -> None:
        """Add or replace nodes."""
        for node in nodes:
            self.fleet.put(node)

    @rule(node_id=st.sampled_from(IDS), jobs=st.integers(0, 4), status=st.sampled_from(NodeStatus))
    def beat(self, node_id: str, jobs: int, status: NodeStatus) -> None:
        """Replace a node, which keeps the same objects for pool and labels."""
        old = self.fleet.nodes.get(node_id)
        if old is not None:
            node = Node._trusted(
                old.id, (old.pool, old.labels), old.capacity, jobs, b"\x80", status, 1, 1
            )
            self.fleet.put(node)
            self.fleet.placements.reported(node_id)

    @rule(node_id=st.sampled_from(IDS))
    def remove(self, node_id: str) -> None:
        """Remove a node, if it exists."""
        if node_id in self.fleet.nodes:
            self.fleet.remove(node_id)

    @rule(node_id=st.sampled_from(IDS), what=st.sampled_from(["placed", "unplaced", "accepted"]))
    def place(self, node_id: str, what: str) -> None:
        """Place a job, take one back, or report one as accepted."""
        getattr(self.fleet.placements, what)(node_id)

    @rule(node_id=st.sampled_from(IDS), times=st.integers(1, 4))
    def refuse(self, node_id: str, times: int) -> None:
        """Let a node refuse a job."""
        for _ in range(times):
            self.fleet.placements.refused(node_id)

    @rule(seconds=st.sampled_from([0.05, 0.2, 0.6, 2.0]))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.fleet.now += seconds

    @rule()
    def clear(self) -> None:
        """Drop all candidates."""
        self.fleet.selector.clear()

    @rule(asked=st.lists(CRITERIA, min_size=1, max_size=4), count=st.sampled_from([1, 2, 3, 20]))
    def pick(self, asked: list[Criteria], count: int) -> None:
        """Check that the selector picks what the scan picks."""
        for criteria in asked:
            naive = Naive(self.fleet, criteria)
            allowed = naive.eligible or naive.rejecting
            picked = self.fleet.selector.pick(criteria, count)
            ids = [node.id for node in picked]
            assert min(count, len(allowed)) == len(ids) == len(set(ids))
            assert all(allowed[node.id] is node for node in picked)
            costs = [naive.cost(node, criteria.strategy) for node in allowed.values()]
            if None not in costs:
                expected = sorted(costs)[:count]
                assert expected == [naive.cost(node, criteria.strategy) for node in picked]
            elif criteria.strategy == "sticky":
                more = self.fleet.selector.pick(criteria, 99)
                assert more[: len(picked)] == picked
            explanation = self.fleet.selector.explain(criteria)
            assert naive.refused == explanation.refused
            assert list(naive.refused) == list(explanation.refused)
            assert len(naive.eligible) == explanation.eligible
            assert len(self.fleet.nodes) == explanation.total

    @invariant()
    def all_are_counted(self) -> None:
        """An explanation counts each node once."""
        explanation = self.fleet.selector.explain(Criteria(pool="gpu"))
        assert explanation.total == sum(explanation.refused.values()) + explanation.eligible


TestChanges = Changes.TestCase
TestChanges.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
