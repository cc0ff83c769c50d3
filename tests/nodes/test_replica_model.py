"""A state machine compares ``Replica`` with a model, for changes in any order."""

from __future__ import annotations

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

from rxdispatch.node import Node, NodeChange
from rxdispatch.nodes.records import Message, NodeRow
from tests.nodes.replicas import (
    FIRST,
    grave,
    made,
    message,
    record,
    touch,
)


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
        """Return the last number."""
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
        """Return the reply to a look-up at the number *at*."""
        node = self.past[at].get(name)
        if node is None:
            return grave(name, at)
        return NodeRow(name, node.seq, node, 0, 30.0, self.births[at][name])

    def changes(self, after: int, at: int) -> list[NodeRow]:
        """Return the compacted log after the number *after*, as it was at the number *at*."""
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
        """Change some nodes, in one message."""
        before = self.model.seq
        for name, what in steps:
            self.model.step(name, what)
        rows = self.model.rows[before:]
        if rows:
            self.sent.append(message(*rows, epoch=self.model.epoch))

    @rule()
    def lose_everything(self) -> None:
        """Lose the data of the registry; the feed notices and relists."""
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
        """Apply the reply to a write of this process, before the stream has it."""
        one = data.draw(st.sampled_from(self.sent))
        if one.epoch == self.model.epoch:
            unseen = [row for row in one.rows if row.seq > self.replica.high]
            self.replica.fill(unseen, one.first + one.length - 1)

    @rule(back=st.integers(0, 8))
    def catch_up(self, back: int) -> None:
        """Apply all changes that the replica lacks, as of any moment up to now."""
        high = self.replica.high
        at = max(high, self.model.seq - back)
        self.replica.fill(self.model.changes(high, at), at, complete=True)
        assert at == self.replica.high

    @rule(back=st.integers(0, 8))
    def relist(self, back: int) -> None:
        """Apply the whole fleet in any order, never older than the known state."""
        at = max(self.replica.high, self.model.seq - back)
        rows = [row for row in self.model.changes(0, at) if row.node is not None]
        self.replica.replace(self.model.epoch, rows, at)

    # -- time

    @rule(seconds=st.sampled_from([1.0, 29.0, 40.0]))
    def lapse(self, seconds: float) -> None:
        """Let time pass without heartbeats."""
        self.clock.now += seconds
        self.replica.lapse()

    @rule()
    def no_proof(self) -> None:
        """Make the server unreachable."""
        self.replica.suspect_all()

    # -- what must hold

    @invariant()
    def mirrors(self) -> None:
        """The mirror, built from the changes, has the very same node objects."""
        assert self.watcher.mirror == self.replica.nodes
        for name, node in self.watcher.mirror.items():
            assert node is self.replica.nodes[name]

    @invariant()
    def never_ahead_of_the_registry(self) -> None:
        """Each node is as the registry had it at some time."""
        seq = self.model.seq
        assert self.replica.high <= seq
        for name, node in self.replica.nodes.items():
            assert node.seq <= seq
            was = self.model.past[node.seq][name]
            assert (was.version, was.capacity) == (node.version, node.capacity)

    @invariant()
    def nothing_that_was_seen_is_undone(self) -> None:
        """Up to ``high``, no node is missing, older, or back after its removal."""
        for name, was in self.model.past[self.replica.high].items():
            node = self.replica.nodes.get(name)
            if node is None:
                # The node was removed later, and the replica knows that already.
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
        """Numbers grow and do not repeat, and each change starts from the previous result."""
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
        """After looking up the doubts and catching up, the replica equals the registry."""
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
    """The replica ends up equal to the registry, and no node ever goes backwards."""
    run_state_machine_as_test(
        Machine, settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    )
