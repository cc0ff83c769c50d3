"""``Node``, ``NodeChange`` and ``Slot`` check their arguments, and nodes are immutable."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import attrs
import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.node import Mode, Node, NodeChange, NodeStatus, Slot, node_id

FULL = Node(
    "a",
    pool="gpu",
    capacity=4,
    current_jobs=1,
    labels={"zone": "x"},
    state={"load": [0.5]},
    status=NodeStatus.DRAINING,
    version=3,
    seq=9,
)


def test_defaults() -> None:
    """A node has capacity 1, the pool ``default``, no labels and no state unless given."""
    node = Node("a")
    assert ("default", 1, 0, {}, {}) == (
        *(node.pool, node.capacity, node.current_jobs),
        *(dict(node.labels), dict(node.state)),
    )
    assert (NodeStatus.READY, 0, 0, 1) == (node.status, node.version, node.seq, node.room)


NAME = "must be a str of 1 to 200 characters"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"id": ""}, f"id {NAME}, got ''"),
    ({"id": "x" * 201}, f"id {NAME}"),
    ({"id": 5}, f"id {NAME}, got 5"),
    ({"id": b"a"}, f"id {NAME}, got b'a'"),
    ({"id": "\ud800"}, "id must be encodable as UTF-8"),
    ({"pool": ""}, f"pool {NAME}"),
    ({"pool": None}, f"pool {NAME}"),
    ({"pool": "\udfff"}, "pool must be encodable as UTF-8"),
    ({"capacity": -1}, "capacity must be an int from 0 to 2147483647, got -1"),
    ({"capacity": 2**31}, "capacity must be an int from 0 to 2147483647"),
    ({"capacity": 1.0}, "capacity must be an int from 0 to 2147483647, got 1.0"),
    ({"capacity": True}, "capacity must be an int from 0 to 2147483647, got True"),
    ({"current_jobs": -1}, "current_jobs must be an int"),
    ({"labels": ["a"]}, "labels must map str to str"),
    ({"labels": {"a": 1}}, "labels must map str to str, got {'a': 1}"),
    ({"labels": {1: "a"}}, "labels must map str to str, got {1: 'a'}"),
    ({"labels": {"a": "\ud800"}}, "labels must be encodable as UTF-8"),
    ({"labels": {"\ud800": "a"}}, "labels must be encodable as UTF-8"),
    ({"state": ["a"]}, "state must be a mapping with str keys"),
    ({"state": {1: 1}}, "state must be a mapping with str keys, got {1: 1}"),
    ({"state": b"junk"}, "state must be a mapping with str keys"),
    ({"state": None}, "state must be a mapping with str keys, got None"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=lambda value: str(value)[:30])
def test_bad_fields(fields: dict[str, Any], message: str) -> None:
    """The error states the rule of the field and the value."""
    given: dict[str, Any] = {"id": "a", **fields}
    with pytest.raises(ConfigError) as caught:
        Node(**given)
    assert str(caught.value).startswith(message)


def test_ids() -> None:
    """``node_id`` applies the rule for the id of a node."""
    assert "节点" == node_id("节点")
    with pytest.raises(ConfigError, match=NAME):
        node_id("")


def test_nothing_can_be_changed() -> None:
    """Neither its fields nor its mappings change, even if the mapping that was passed does."""
    labels, state = {"a": "b"}, {"x": 1}
    node: Any = Node("a", labels=labels, state=state)
    labels["c"] = "d"
    state["y"] = 2
    assert ({"a": "b"}, {"x": 1}) == (dict(node.labels), dict(node.state))
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        node.capacity = 5
    bare: Any = Node("b")
    for mapping in (node.labels, node.state, bare.labels, bare.state):
        with pytest.raises(TypeError):
            mapping["z"] = "z"


@pytest.mark.parametrize(
    ("status", "jobs", "room"),
    [("ready", 1, 3), ("ready", 4, 0), ("ready", 9, 0), ("draining", 0, 0), ("suspect", 0, 0)],
)
def test_room(status: str, jobs: int, room: int) -> None:
    """The room is the number of free slots of a ready node, and 0 for other nodes."""
    assert room == Node("a", capacity=4, current_jobs=jobs, status=NodeStatus(status)).room


def test_equal() -> None:
    """Nodes are equal if all fields are, whether or not the state has been decoded."""
    spec, state = ("gpu", {"zone": "x"}), FULL._packed_state
    trusted = Node._trusted("a", spec, 4, 1, state, NodeStatus.DRAINING, 3, 9)
    assert trusted == FULL
    assert hash(trusted) == hash(FULL)
    changes: list[dict[str, Any]] = [{"seq": 8}, {"version": 4}, {"labels": {}}, {"capacity": 5}]
    for change in changes:
        other = attrs.evolve(FULL, **change)
        assert other != FULL
    assert FULL != "a"


def test_copies() -> None:
    """A pickled, copied or evolved node is equal to the original, even one that a feed made."""
    trusted = Node._trusted("a", ("p", {}), 4, 1, FULL._packed_state, NodeStatus.READY, 3, 9)
    for node in (FULL, Node("b"), trusted):
        for same in (pickle.loads(pickle.dumps(node)), copy.deepcopy(node), attrs.evolve(node)):
            assert node == same
    assert isinstance(trusted, Node)
    assert 7 == attrs.evolve(trusted, capacity=7).capacity


def test_repr() -> None:
    """The repr has all fields, in one line."""
    assert (
        "Node('a', pool='gpu', jobs=1/4, labels={'zone': 'x'}, state={'load': [0.5]}, "
        "status='draining', version=3, seq=9)"
    ) == repr(FULL)


def test_later_forms() -> None:
    """A renewed node and one with a new status keep their other fields."""
    later, marked = FULL._renewed(4, 10), FULL._marked(NodeStatus.SUSPECT)
    assert (4, 10, FULL.status) == (later.version, later.seq, later.status)
    assert (3, 9, NodeStatus.SUSPECT) == (marked.version, marked.seq, marked.status)
    assert later.labels is marked.labels is FULL.labels
    assert FULL == marked._marked(NodeStatus.DRAINING)


def test_changes_and_slots() -> None:
    """Changes compare by value, slots by identity; a slot can be lost."""
    change = NodeChange("added", FULL, None, "e", 9)
    assert change == NodeChange("added", attrs.evolve(FULL), None, "e", 9)
    frozen: Any = change
    with pytest.raises(AttributeError):
        frozen.seq = 1
    slot = Slot("s", FULL)
    assert slot != Slot("s", FULL)
    assert not slot.lost
    slot.revoked = True
    assert slot.lost


def test_a_slot_is_lost_by_the_clock() -> None:
    """A slot is lost as soon as its lease has passed, without a message."""
    now = 10.0
    slot = Slot("s", FULL, 11.0, lambda: now)
    assert not slot.lost
    now = 11.0
    assert slot.lost


def test_modes() -> None:
    """Modes compare by name."""
    assert ["NORMAL", "L2_ONLY", "LOCAL_ONLY"] == [mode.value for mode in Mode]
