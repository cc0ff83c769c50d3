"""``Replica``: a node only goes forward, even if changes come late, twice or out of order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import attrs
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,  # pyright: ignore[reportUnknownVariableType]
)

from rxdispatch.node import Node, NodeChange, NodeStatus
from rxdispatch.nodes.records import Message, NodeRow
from rxdispatch.nodes.replica.followers import Followers
from rxdispatch.nodes.replica.replica import Replica

FIRST, SECOND = b"1" * 16, b"2" * 16


class Watcher(Followers):
    """Keeps what the replica reports, and mirrors the nodes from that alone."""

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
        # The node before the change is the one in the mirror.
        assert self.mirror.get(known.id) is previous
        if node is None:
            del self.mirror[known.id]
        else:
            self.mirror[known.id] = node

    def replaced(self) -> None:
        """Copy the nodes."""
        assert self.replica is not None
        self.mirror = dict(self.replica.nodes)

    def publish(self, change: NodeChange) -> None:
        """Keep the change."""
        self.changes.append(change)

    def doubt(self, node: str) -> None:
        """Keep the id."""
        self.doubts.append(node)

    def lapse_at(self, at: float) -> None:
        """Keep the time."""
        self.announced.append(at)

    def kinds(self) -> list[tuple[str, str, int]]:
        """Return the published changes, and forget them."""
        changes, self.changes = self.changes, []
        return [(c.kind, c.node.id if c.node else "", c.seq) for c in changes]


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def made(epoch: bytes = FIRST) -> tuple[Replica, Watcher, Clock]:
    """Return an empty replica of that epoch."""
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
    """Return the message of these rows."""
    return Message(epoch, rows[0].seq, len(rows) + bad, list(rows), bad, rows[-1].seq)


# -- one thing at a time ---------------------------------------------------------------------


def test_following() -> None:
    """Rows apply in order; a heartbeat without news changes the node and publishes nothing."""
    replica, watcher, _ = made()
    assert replica.follow(message(record("a", 1), record("b", 2)))
    assert replica.follow(message(touch("a", 3, 2)))
    assert replica.follow(message(record("b", 4, 2, capacity=3), grave("a", 5)))
    assert [("added", "a", 1), ("added", "b", 2), ("updated", "b", 4), ("removed", "a", 5)] == (
        watcher.kinds()
    )
    assert (["b"], 5) == ([*replica.nodes], replica.high)
    assert watcher.mirror == replica.nodes


def test_seen_changes_are_ignored() -> None:
    """Of repeated, older or overlapping messages only the new part counts."""
    replica, watcher, _ = made()
    first = message(record("a", 1), record("b", 2))
    assert replica.follow(first)
    assert replica.follow(first)
    assert replica.follow(message(record("b", 2), grave("a", 3)))
    assert replica.follow(first)
    assert ["b"] == [*replica.nodes]
    assert [("added", "a", 1), ("added", "b", 2), ("removed", "a", 3)] == watcher.kinds()


def test_gaps() -> None:
    """A missing number, another epoch, or a row that cannot be parsed."""
    replica, watcher, _ = made()
    assert not replica.follow(message(record("a", 2)))
    assert not replica.follow(message(record("a", 1), epoch=SECOND))
    assert ({}, 0) == (replica.nodes, replica.high)
    assert not replica.follow(message(record("a", 1), bad=1))
    assert (["a"], 0) == ([*replica.nodes], replica.high)
    assert not replica.follow(message(record("b", 3)))
    replica.fill([record("a", 1), record("c", 2)], 2, complete=True)
    assert replica.follow(message(record("b", 3)))
    assert [("added", "a", 1), ("added", "c", 2), ("added", "b", 3)] == watcher.kinds()


def test_a_node_that_is_ahead() -> None:
    """Later messages of the stream do not undo a look-up."""
    replica, watcher, _ = made()
    replica.fill([record("a", 5, 3)], 6)
    assert replica.follow(message(record("a", 1), touch("a", 2, 2), grave("a", 3), record("a", 4)))
    assert replica.follow(message(record("a", 5, 3), record("a", 6, 4)))
    assert [("added", "a", 5), ("updated", "a", 6)] == watcher.kinds()


def test_a_removal_that_is_ahead() -> None:
    """A node that was found removed comes back by a newer row only."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1)))
    replica.fill([grave("a", 5)], 5)
    assert replica.follow(message(record("a", 2, 2), record("a", 3, 3)))
    replica.fill([record("a", 3, 3)], 4)
    assert {} == replica.nodes
    assert replica.follow(message(grave("a", 4), record("b", 5), record("a", 6)))
    assert ["b", "a"] == [*replica.nodes]
    assert [("added", "a", 1), ("removed", "a", 5), ("added", "b", 5), ("added", "a", 6)] == (
        watcher.kinds()
    )


def test_a_reply_that_is_late() -> None:
    """Neither nodes nor removals of an outdated reply count."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1), record("b", 2), grave("a", 3), touch("b", 4, 2)))
    watcher.kinds()
    replica.fill([record("a", 1), grave("b", 1)], 1)
    replica.fill([record("a", 1), record("b", 2)], 2)
    assert [("b", 4)] == [(node.id, node.seq) for node in replica.nodes.values()]
    assert [] == watcher.kinds()


def test_a_heartbeat_that_does_not_fit() -> None:
    """A heartbeat of an unknown node, or with a skipped version, causes a look-up."""
    replica, watcher, _ = made()
    replica.follow(message(touch("a", 1, 2)))
    replica.follow(message(record("b", 2), touch("b", 3, 3)))
    assert ["a", "b"] == watcher.doubts
    assert [2] == [node.seq for node in replica.nodes.values()]


def test_previous() -> None:
    """The node just before the change, even if heartbeats came between."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1), touch("a", 2, 2), record("a", 3, 3, capacity=9)))
    replica.follow(message(grave("a", 4)))
    added, updated, removed = watcher.changes
    assert added.previous is None
    assert updated.previous is not None
    assert (2, 2) == (updated.previous.seq, updated.previous.version)
    assert removed.previous is updated.node is removed.node
    assert {FIRST.hex()} == {change.epoch for change in watcher.changes}


# -- all at once -----------------------------------------------------------------------------


def test_replacing() -> None:
    """Only differences are published; absent nodes are removed."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1), record("b", 2), record("c", 3)))
    watcher.kinds()
    rows = [record("a", 1), record("c", 5, 2, capacity=4), record("d", 6)]
    replica.replace(FIRST, rows, 7)
    assert [("updated", "c", 5), ("added", "d", 6), ("removed", "b", 7)] == watcher.kinds()
    assert (["a", "c", "d"], 7) == ([*replica.nodes], replica.high)
    assert replica.nodes == watcher.mirror


def test_replacing_what_is_older() -> None:
    """A node that was looked up meanwhile and is newer than the list stays."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1), record("b", 2), record("c", 3)))
    replica.fill([record("a", 9, 5), grave("b", 9), record("d", 8)], 9)
    watcher.kinds()
    replica.replace(FIRST, [record("a", 4, 2), record("b", 2), record("c", 3)], 4)
    assert [] == watcher.kinds()
    assert [("a", 9), ("c", 3), ("d", 8)] == [(n.id, n.seq) for n in replica.nodes.values()]
    assert replica.follow(message(record("b", 5), record("b", 6, 2)))
    assert "b" not in replica.nodes


def test_another_epoch() -> None:
    """Numbers restart; equal nodes are published too, as their numbers differ."""
    replica, watcher, _ = made()
    replica.follow(message(*(record("a", n, n) for n in range(1, 9)), record("b", 9)))
    watcher.kinds()
    replica.replace(SECOND, [record("a", 1), record("c", 2)], 2)
    assert [("updated", "a", 1), ("added", "c", 2), ("removed", "b", 2)] == watcher.kinds()
    assert not replica.follow(message(record("a", 3, 2)))
    assert replica.follow(message(record("a", 3, 2), epoch=SECOND))
    assert [("updated", "a", 3)] == watcher.kinds()


def test_another_epoch_with_the_same_data() -> None:
    """A server that comes back with all data causes no change."""
    replica, watcher, _ = made()
    rows = [record("a", 1, labels={"z": "1"}), record("b", 2, 7, state={"x": 1})]
    replica.follow(message(*rows))
    watcher.kinds()
    replica.replace(SECOND, rows, 2)
    assert [] == watcher.kinds()


def test_removals_of_before_an_epoch_are_forgotten() -> None:
    """Their numbers mean nothing in the new epoch."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1)))
    replica.fill([grave("a", 50)], 50)
    replica.replace(SECOND, [record("a", 1)], 1)
    assert ["a"] == [*replica.nodes]
    assert [("added", "a", 1), ("removed", "a", 50), ("added", "a", 1)] == watcher.kinds()


# -- time ------------------------------------------------------------------------------------


def test_lapsing() -> None:
    """Suspect once, published once, to be looked up; nodes with heartbeats are not affected."""
    replica, watcher, clock = made()
    replica.follow(message(record("a", 1, ttl=10.0), record("b", 2, ttl=10.0)))
    clock.now += 9.9
    replica.lapse()
    replica.follow(message(touch("b", 3, 2, ttl=10.0)))
    clock.now += 0.7
    for _ in range(3):
        replica.lapse()
    assert (["a"], ["a"]) == (replica.suspects(), watcher.doubts)
    assert [("added", "a", 1), ("added", "b", 2), ("suspect", "a", 1)] == watcher.kinds()
    node = replica.nodes["a"]
    assert (NodeStatus.SUSPECT, 0) == (node.status, node.room)
    clock.now += 10.0
    replica.lapse()
    assert ["a", "b"] == sorted(replica.suspects())
    assert replica.nodes == watcher.mirror


def test_nodes_of_one_moment_lapse_apart() -> None:
    """Up to 40 ms later, so that not all are looked up at once."""
    random.seed(5)
    replica, watcher, clock = made()
    replica.follow(message(*(record(f"{n}", n, ttl=100.0) for n in range(1, 101))))
    assert 100.0 <= watcher.announced[-1] - clock.now <= 100.04
    clock.now += 100.0
    assert not replica.due
    replica.lapse()
    assert [] == replica.suspects()
    clock.now += 0.02
    assert replica.due
    replica.lapse()
    assert 20 < len(replica.suspects()) < 80
    clock.now += 0.021
    replica.lapse()
    assert 100 == len(replica.suspects())


def test_asking_for_the_fleet_from_within() -> None:
    """A subscriber of a suspect may check the ttls itself."""
    replica, watcher, clock = made()
    replica.follow(message(*(record(f"{n}", n, ttl=10.0) for n in range(1, 9))))
    watcher.kinds()
    clock.now += 11.0
    publish = watcher.publish

    def checking(change: NodeChange) -> None:
        publish(change)
        replica.lapse()

    watcher.publish = checking  # type: ignore[method-assign]
    replica.lapse()
    assert [("suspect", f"{n}", n) for n in range(1, 9)] == sorted(watcher.kinds())


def test_a_ttl_is_announced_until_it_was_dealt_with() -> None:
    """A timer that fires a hair too soon is set for the same ttl again."""
    replica, watcher, clock = made()
    replica.follow(message(record("a", 1, ttl=10.0)))
    (at,) = watcher.announced
    clock.now += 9.0
    replica.lapse()
    replica.follow(message(touch("a", 2, 2, ttl=10.0)))
    clock.now = at
    replica.lapse()
    assert [at, at] == watcher.announced[:2]
    assert 1 == len(watcher.announced[2:])
    assert at < watcher.announced[2]


@pytest.mark.parametrize("way", ["fill", "replace"])
def test_a_new_life_that_began_during_a_gap(way: str) -> None:
    """A node that left and came back during a gap is published as removed and added."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1, birth=1), record("b", 2, birth=2)))
    watcher.kinds()
    rows = [record("b", 3, 2, birth=2), record("a", 7, 4, birth=5)]
    if way == "fill":
        replica.fill(rows, 7, complete=True)
    else:
        replica.replace(FIRST, rows, 7)
    assert [("updated", "b", 3), ("removed", "a", 4), ("added", "a", 7)] == watcher.kinds()
    assert replica.nodes == watcher.mirror


def test_how_long_a_node_was_silent() -> None:
    """Counted from its last heartbeat, even if another change came later."""
    replica, _, clock = made()
    assert replica.silence("a") is None
    replica.keep_heartbeats()
    replica.follow(message(record("a", 1, ttl=30.0), record("b", 2, ttl=0.0, silence=40.0)))
    clock.now += 4.0
    replica.follow(message(record("a", 3, 2, ttl=26.0, silence=4.0)))
    assert (4.0, 44.0, None) == (replica.silence("a"), replica.silence("b"), replica.silence("c"))
    replica.keep_heartbeats()
    replica.follow(message(touch("a", 4, 3)))
    clock.now += 1.0
    assert 1.0 == replica.silence("a")
    replica.replace(FIRST, [record("a", 9, 5, ttl=0.0, silence=31.0)], 9)
    assert (31.0, None) == (replica.silence("a"), replica.silence("b"))
    replica.follow(message(grave("a", 10)))
    assert replica.silence("a") is None


def suspect() -> tuple[Replica, Watcher]:
    """Return a replica with a node that has lapsed."""
    replica, watcher, clock = made()
    replica.follow(message(record("a", 1, ttl=10.0)))
    clock.now += 20.0
    replica.lapse()
    watcher.changes.clear()
    watcher.doubts.clear()
    return replica, watcher


def test_a_suspect_that_lives() -> None:
    """A look-up without a change, a change, or a list makes it ready again."""
    ways: list[Callable[[Replica], Any]] = [
        lambda replica: replica.fill([record("a", 1)], 1),
        lambda replica: replica.follow(message(record("a", 2, 2))),
        lambda replica: replica.replace(FIRST, [record("a", 1)], 1),
    ]
    for way in ways:
        replica, watcher = suspect()
        way(replica)
        assert NodeStatus.READY is replica.nodes["a"].status
        (change,) = watcher.changes
        assert "updated" == change.kind
        assert change.previous is not None
        assert NodeStatus.SUSPECT is change.previous.status
        assert replica.nodes == watcher.mirror


def test_a_suspect_whose_heartbeat_comes() -> None:
    """Its status from before is unknown, so it is looked up."""
    replica, watcher = suspect()
    replica.follow(message(touch("a", 2, 2)))
    assert (["a"], []) == (watcher.doubts, watcher.kinds())
    replica.fill([record("a", 2, 2)], 2)
    assert [("updated", "a", 2)] == watcher.kinds()
    assert NodeStatus.READY is replica.nodes["a"].status


def test_a_suspect_that_is_gone() -> None:
    """It is removed with its last state."""
    replica, watcher = suspect()
    replica.follow(message(grave("a", 2)))
    assert [("removed", "a", 2)] == watcher.kinds()
    assert {} == replica.nodes == watcher.mirror


def test_what_the_registry_holds_on_to() -> None:
    """A node that has lapsed in a fleet without removals is suspect here."""
    for way in ("fill", "replace", "follow"):
        replica, watcher, _ = made()
        row = record("a", 1, ttl=0.0)
        if way == "fill":
            replica.fill([row], 1)
        elif way == "replace":
            replica.replace(FIRST, [row], 1)
        else:
            replica.follow(message(row))
        assert NodeStatus.SUSPECT is replica.nodes["a"].status
        assert replica.nodes == watcher.mirror
        # The same answer again publishes nothing.
        watcher.kinds()
        replica.fill([row], 1)
        assert [] == watcher.kinds()


def test_no_proof() -> None:
    """All are suspect, each published once."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1), record("b", 2)))
    watcher.kinds()
    replica.suspect_all()
    replica.suspect_all()
    assert [("suspect", "a", 1), ("suspect", "b", 2)] == watcher.kinds()
    assert [0.0, 0.0] == [node.room for node in replica.nodes.values()]


def test_what_remains() -> None:
    """Seconds until a node lapses."""
    replica, _, clock = made()
    replica.follow(message(record("a", 1, ttl=10.0)))
    assert 10.0 <= replica.remaining("a") <= 10.5
    clock.now += 9.0
    assert 1.0 <= replica.remaining("a") <= 1.5
    clock.now += 9.0
    assert 0.0 == replica.remaining("a") == replica.remaining("none")


# -- everything in any order -----------------------------------------------------------------


@attrs.define
class Model:
    """A registry that assigns numbers, and remembers every row and every position."""

    epoch: bytes
    nodes: dict[str, Node] = attrs.field(factory=dict[str, Node])
    rows: list[NodeRow] = attrs.field(factory=list[NodeRow])
    past: list[dict[str, Node]] = attrs.field(factory=lambda: [dict[str, Node]()])
    births: list[dict[str, int]] = attrs.field(factory=lambda: [dict[str, int]()])

    @property
    def seq(self) -> int:
        """The last number."""
        return len(self.rows)

    def step(self, name: str, what: str) -> None:
        """Make a change of a node."""
        seq, old = self.seq + 1, self.nodes.get(name)
        births = dict(self.births[-1])
        if what == "remove":
            if old is None:
                return
            del self.nodes[name]
            del births[name]
            self.rows.append(grave(name, seq))
        elif what == "touch" and old is not None:
            self.nodes[name] = old._renewed(old.version + 1, seq)
            self.rows.append(touch(name, seq, old.version + 1))
        else:
            version = 1 if old is None else old.version + 1
            births.setdefault(name, seq)
            self.rows.append(record(name, seq, version, capacity=seq, birth=births[name]))
            node = self.rows[-1].node
            assert node is not None
            self.nodes[name] = node
        self.past.append(dict(self.nodes))
        self.births.append(births)

    def looked_up(self, name: str, at: int) -> NodeRow:
        """Return the reply to a look-up at that number."""
        node = self.past[at].get(name)
        if node is None:
            return grave(name, at)
        return NodeRow(name, node.seq, node, 0, 30.0, self.births[at][name])

    def changes(self, after: int, at: int) -> list[NodeRow]:
        """Return the compacted log after a number, as of another number."""
        last = {row.id: row for row in self.rows[:at]}
        late = sorted((r for r in last.values() if r.seq > after), key=lambda row: row.seq)
        return [self.looked_up(row.id, at)._replace(seq=row.seq) for row in late]


NAMES = st.sampled_from(["a", "b", "c"])
STEPS = st.sampled_from(["record", "record", "touch", "touch", "remove"])


class Machine(RuleBasedStateMachine):
    """A replica between a registry and a network that reorders, repeats and loses messages."""

    @initialize()
    def begin(self) -> None:
        """Start with an empty fleet."""
        self.replica, self.watcher, self.clock = made()
        self.model = Model(FIRST)
        self.sent: list[Message] = []
        self.unsent = 0
        self.epochs = 1
        self.checked = 0
        self.last: dict[str, NodeChange] = {}

    # -- the registry

    @rule(steps=st.lists(st.tuples(NAMES, STEPS), min_size=1, max_size=5))
    def happen(self, steps: list[tuple[str, str]]) -> None:
        """Some nodes change, in one message."""
        before = self.model.seq
        for name, what in steps:
            self.model.step(name, what)
        rows = self.model.rows[before:]
        if rows:
            self.sent.append(message(*rows, epoch=self.model.epoch))

    @rule()
    def lose_everything(self) -> None:
        """The data is lost; the feed notices and relists."""
        self.epochs += 1
        self.model = Model(f"{self.epochs:016}".encode())
        self.replica.replace(self.model.epoch, [], 0)

    # -- the network

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Deliver any message ever sent, any number of times."""
        at = data.draw(st.integers(0, len(self.sent) - 1))
        expected = self.sent[at]
        high = self.replica.high
        done = self.replica.follow(expected)
        next_one = expected.epoch == self.model.epoch and expected.first <= high + 1
        assert done == next_one
        last = expected.first + expected.length - 1
        assert (max(high, last) if next_one else high) == self.replica.high

    @precondition(lambda self: self.sent)
    @rule()
    def deliver_the_next(self) -> None:
        """Deliver the next message, as in normal operation."""
        for one in self.sent:
            self.replica.follow(one)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def spoil(self, data: st.DataObject) -> None:
        """Deliver a message with a row that cannot be parsed."""
        one = data.draw(st.sampled_from(self.sent))
        lost = data.draw(st.integers(0, one.length - 1))
        rows = [row for at, row in enumerate(one.rows) if at != lost]
        high = self.replica.high
        done = self.replica.follow(one._replace(rows=rows, bad=1))
        last = one.first + one.length - 1
        assert not done or last <= high
        assert high == self.replica.high

    @rule(names=st.lists(NAMES, unique=True, min_size=1), back=st.integers(0, 8))
    def look_up(self, names: list[str], back: int) -> None:
        """Apply a reply to a look-up, from any moment up to now."""
        at = max(0, self.model.seq - back)
        self.replica.fill([self.model.looked_up(name, at) for name in names], at)

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        """The reply to a write of this process arrives before the stream has it."""
        one = data.draw(st.sampled_from(self.sent))
        if one.epoch == self.model.epoch:
            unseen = [row for row in one.rows if row.seq > self.replica.high]
            self.replica.fill(unseen, one.first + one.length - 1)

    @rule(back=st.integers(0, 8))
    def catch_up(self, back: int) -> None:
        """Apply all changes after the known ones, as of any moment up to now."""
        high = self.replica.high
        at = max(high, self.model.seq - back)
        self.replica.fill(self.model.changes(high, at), at, complete=True)
        assert at == self.replica.high

    @rule(back=st.integers(0, 8))
    def relist(self, back: int) -> None:
        """Apply the whole fleet, in no order, never older than the known state."""
        at = max(self.replica.high, self.model.seq - back)
        rows = [row for row in self.model.changes(0, at) if row.node is not None]
        self.replica.replace(self.model.epoch, rows, at)

    # -- time

    @rule(seconds=st.sampled_from([1.0, 29.0, 40.0]))
    def lapse(self, seconds: float) -> None:
        """Time passes without heartbeats."""
        self.clock.now += seconds
        self.replica.lapse()

    @rule()
    def no_proof(self) -> None:
        """The server is unreachable."""
        self.replica.suspect_all()

    # -- what must hold

    @invariant()
    def mirrors(self) -> None:
        """A follower of the changes has the same nodes, the very same objects."""
        assert self.watcher.mirror == self.replica.nodes
        for name, node in self.watcher.mirror.items():
            assert node is self.replica.nodes[name]

    @invariant()
    def never_ahead_of_the_registry(self) -> None:
        """Each node is as it once was; an absent node was absent once."""
        seq = self.model.seq
        assert self.replica.high <= seq
        for name, node in self.replica.nodes.items():
            assert node.seq <= seq
            was = self.model.past[node.seq][name]
            assert (was.version, was.capacity) == (node.version, node.capacity)

    @invariant()
    def nothing_that_was_seen_is_undone(self) -> None:
        """Up to ``high`` no node is missing, older, or back after its removal."""
        for name, was in self.model.past[self.replica.high].items():
            node = self.replica.nodes.get(name)
            if node is None:
                # Then it was removed later, and the replica knows.
                assert any(
                    row.id == name and row.node is None and not row.version
                    for row in self.model.rows[self.replica.high :]
                )
            elif name not in self.watcher.doubts:
                assert node.seq >= was.seq
        for name, node in self.replica.nodes.items():
            if node.seq <= self.replica.high:
                assert name in self.model.past[self.replica.high]

    @invariant()
    def changes_are_a_chain(self) -> None:
        """Numbers grow, none twice, and each change starts from the result of the one before."""
        for change in self.watcher.changes[self.checked :]:
            node, previous = change.node, change.previous
            assert node is not None
            before = self.last.get(node.id)
            alive = before is not None and before.kind != "removed"
            assert (change.kind == "added") == (not alive)
            assert (previous is None) == (change.kind == "added")
            if before is not None and previous is not None:
                assert before.node is not None
                # Only heartbeats may have come in between.
                assert before.node.capacity == previous.capacity
                assert before.node.status == previous.status or change.kind == "updated"
            if before is not None and before.epoch == change.epoch:
                assert before.seq <= change.seq
                if change.kind == "updated" and change.epoch == self.model.epoch.hex():
                    # A new life of a node is not published as a continuation of the old one.
                    births = self.model.births
                    assert births[before.seq][node.id] == births[node.seq][node.id]
                if before.seq == change.seq:
                    assert "suspect" in {before.kind, change.kind} or change.kind == "removed"
                    assert before.kind != change.kind
            self.last[node.id] = change
        self.checked = len(self.watcher.changes)

    def teardown(self) -> None:
        """After looking up the doubts and catching up, it equals the registry."""
        replica, model = self.replica, self.model
        at = model.seq
        replica.fill(model.changes(replica.high, at), at, complete=True)
        doubts = {*self.watcher.doubts, *replica.suspects()}
        replica.fill([model.looked_up(name, at) for name in sorted(doubts)], at)
        assert model.nodes == replica.nodes
        self.mirrors()
        self.changes_are_a_chain()


@pytest.mark.parametrize(("steps", "examples"), [(6, 150), (30, 60)])
def test_everything_in_any_order(steps: int, examples: int) -> None:
    """It ends up equal to the registry, and no node ever goes backwards."""
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    )
