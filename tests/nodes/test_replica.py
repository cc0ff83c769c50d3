"""``Replica``: a node never goes backwards, even if changes come late, twice or out of order."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from rxdispatch.node import NodeChange, NodeStatus
from rxdispatch.nodes.replica.replica import Replica
from tests.nodes.replicas import (
    FIRST,
    SECOND,
    Watcher,
    grave,
    made,
    message,
    record,
    touch,
)

# -- one thing at a time ---------------------------------------------------------------------


def test_following() -> None:
    """Rows apply in order; a heartbeat without news changes the node but publishes nothing."""
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
    """Of repeated, older or overlapping messages, only the new part counts."""
    replica, watcher, _ = made()
    first = message(record("a", 1), record("b", 2))
    assert replica.follow(first)
    assert replica.follow(first)
    assert replica.follow(message(record("b", 2), grave("a", 3)))
    assert replica.follow(first)
    assert ["b"] == [*replica.nodes]
    assert [("added", "a", 1), ("added", "b", 2), ("removed", "a", 3)] == watcher.kinds()


def test_gaps() -> None:
    """A missing number, another epoch, or a row that cannot be parsed is a gap."""
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
    """A node that was found removed only comes back by a newer row."""
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
    """Neither the nodes nor the removals of an outdated reply count."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1), record("b", 2), grave("a", 3), touch("b", 4, 2)))
    watcher.kinds()
    replica.fill([record("a", 1), grave("b", 1)], 1)
    replica.fill([record("a", 1), record("b", 2)], 2)
    assert [("b", 4)] == [(node.id, node.seq) for node in replica.nodes.values()]
    assert [] == watcher.kinds()


def test_a_heartbeat_that_does_not_fit() -> None:
    """A heartbeat for an unknown node, or one that skips a version, causes a look-up."""
    replica, watcher, _ = made()
    replica.follow(message(touch("a", 1, 2)))
    replica.follow(message(record("b", 2), touch("b", 3, 3)))
    assert ["a", "b"] == watcher.doubts
    assert [2] == [node.seq for node in replica.nodes.values()]


def test_previous() -> None:
    """``previous`` is the node just before the change, even if heartbeats came between."""
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
    """Numbers restart, so equal nodes are published too, as their numbers differ."""
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
    """Numbers of removals mean nothing in a new epoch."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1)))
    replica.fill([grave("a", 50)], 50)
    replica.replace(SECOND, [record("a", 1)], 1)
    assert ["a"] == [*replica.nodes]
    assert [("added", "a", 1), ("removed", "a", 50), ("added", "a", 1)] == watcher.kinds()


# -- time ------------------------------------------------------------------------------------


def test_lapsing() -> None:
    """A lapsed node becomes suspect, is published once and looked up; others are not affected."""
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
    """Nodes lapse with a spread of 40 ms, so that they are not all looked up at once."""
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
    """A subscriber that gets a suspect may check the ttls itself."""
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
    """A timer that fires slightly too early is set again for the same ttl."""
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
    """The silence counts from the last heartbeat, even if another change came later."""
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
    """A look-up without a change, a change, or a list makes the node ready again."""
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
    """The heartbeat does not contain the earlier status, so the node is looked up."""
    replica, watcher = suspect()
    replica.follow(message(touch("a", 2, 2)))
    assert (["a"], []) == (watcher.doubts, watcher.kinds())
    replica.fill([record("a", 2, 2)], 2)
    assert [("updated", "a", 2)] == watcher.kinds()
    assert NodeStatus.READY is replica.nodes["a"].status


def test_a_suspect_that_is_gone() -> None:
    """The suspect is removed with its last state."""
    replica, watcher = suspect()
    replica.follow(message(grave("a", 2)))
    assert [("removed", "a", 2)] == watcher.kinds()
    assert {} == replica.nodes == watcher.mirror


def test_what_the_registry_holds_on_to() -> None:
    """A lapsed node that the registry keeps in a mass lapse is suspect in the replica."""
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
    """All nodes are suspect, and each is published once."""
    replica, watcher, _ = made()
    replica.follow(message(record("a", 1), record("b", 2)))
    watcher.kinds()
    replica.suspect_all()
    replica.suspect_all()
    assert [("suspect", "a", 1), ("suspect", "b", 2)] == watcher.kinds()
    assert [0.0, 0.0] == [node.room for node in replica.nodes.values()]


def test_what_remains() -> None:
    """``remaining`` returns the seconds until a node lapses."""
    replica, _, clock = made()
    replica.follow(message(record("a", 1, ttl=10.0)))
    assert 10.0 <= replica.remaining("a") <= 10.5
    clock.now += 9.0
    assert 1.0 <= replica.remaining("a") <= 1.5
    clock.now += 9.0
    assert 0.0 == replica.remaining("a") == replica.remaining("none")
