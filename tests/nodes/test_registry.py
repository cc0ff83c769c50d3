"""``Registry``: each call is one atomic step, and the rules hold for any order of calls."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from datetime import timedelta
from operator import methodcaller
from typing import Any

import pytest

from rxdispatch.errors import CodecError, ConfigError, NoCapacityError, NodeNotFoundError
from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.registry import Registry
from tests.nodes.places import KINDS, Ground, ground
from tests.servers import Kind

every_kind = pytest.mark.parametrize("kind", KINDS)


def nested(depth: int) -> Any:
    """Return nested lists."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


# -- registering -----------------------------------------------------------------------------


@every_kind
async def test_a_node_as_it_was_registered(kind: Kind) -> None:
    """The node has all given fields, the first version, and the registry's values for the rest."""
    async with ground(kind) as it:
        node = Node(
            "gpu-1",
            pool="gpu",
            capacity=8,
            labels={"zone": "a"},
            state={"load": 0.5, "tags": [1, "x", None, b"\x00"]},
            current_jobs=3,
            status=NodeStatus.DRAINING,
            version=77,
            seq=99,
        )
        assert 1 == await it.nodes.register(node)
        found = (await it.fleet())["gpu-1"]
        assert ("gpu", 8, {"zone": "a"}) == (found.pool, found.capacity, dict(found.labels))
        assert dict(node.state) == dict(found.state)
        assert (0, NodeStatus.READY, 1, 1) == (
            *(found.current_jobs, found.status),
            *(found.version, found.seq),
        )


@every_kind
async def test_a_known_id_is_updated(kind: Kind) -> None:
    """The node is updated, ready again, and keeps its jobs; its version grows by one."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=2, state={"x": 1}))
        await it.nodes.reserve("a")
        await it.nodes.drain("a")
        assert 4 == await it.other.nodes.register(Node("a", pool="p", capacity=1, state={"y": 2}))
        found = (await it.fleet())["a"]
        assert ("p", 1, 1, {"y": 2}, NodeStatus.READY, 4) == (
            *(found.pool, found.capacity, found.current_jobs, dict(found.state)),
            *(found.status, found.version),
        )


@every_kind
async def test_several_at_once(kind: Kind) -> None:
    """Nodes are registered in order, also more than fit one step, from any iterable."""
    async with ground(kind) as it, it.published() as messages:
        assert [] == await it.nodes.register([])
        assert 0 == await it.call("DBSIZE")
        nodes = [Node(f"n{n:03}", state={"n": n}) for n in range(700)]
        assert [1] * 700 == await it.nodes.register(iter(nodes))
        assert [node.id for node in nodes] == await it.ids()
        versions = await it.nodes.heartbeats({node.id: None for node in reversed(nodes)})
        assert dict.fromkeys((node.id for node in nodes), 2) == versions
        assert [3] == await it.nodes.register([Node("n000", pool="p")])
    assert [*range(1, 1402)] == [row.seq for message in messages for row in message.rows]
    assert {0} == {message.bad for message in messages}


@every_kind
async def test_ids_of_all_kinds(kind: Kind) -> None:
    """Ids may have letters of any script, separators and zeros, and differ if any byte differs."""
    ids = [
        "a",
        "A",
        "ä",
        "a\u0308",
        "节点",
        "🤖" * 200,
        "a:b",
        "a b",
        "{a}",
        "a\0b",
        "'; --",
        "é" * 200,
    ]
    async with ground(kind) as it:
        labels = {"зона": "🌍", "": ""}
        for one in ids:
            state = {"имя": one}
            assert 1 == await it.nodes.register(Node(one, pool=one, labels=labels, state=state))
        assert sorted(ids) == await it.ids()
        found = await it.fleet()
        for one in ids:
            assert (one, labels, {"имя": one}) == (
                *(found[one].pool, dict(found[one].labels)),
                dict(found[one].state),
            )
            slot = await it.nodes.reserve(one)
            assert [True] == await it.nodes.renew(slot)
            await it.nodes.release(slot)
            await it.nodes.remove(one)
        assert [] == await it.ids()


BAD_CALLS: dict[str, tuple[Callable[[Registry], Awaitable[Any]], type[Exception], str]] = {}


def bad(name: str, error: type[Exception], message: str, call: Callable[[Any], Any]) -> None:
    """Add a call that must be refused."""
    BAD_CALLS[name] = (call, error, message)


GOOD = Node("good")
LARGE = "x" * 65536
SECONDS = "must be a finite number of seconds > 0"
bad("a str", ConfigError, "nodes must be one or an iterable of them", methodcaller("register", "a"))
bad(
    "a number", ConfigError, "nodes must be one or an iterable of them", methodcaller("register", 5)
)
bad("no node", ConfigError, "nodes must be rxdispatch.Node", methodcaller("register", [GOOD, "a"]))
bad("twice", ConfigError, "nodes must have different ids", methodcaller("register", [GOOD, GOOD]))
for _ttl in (0, -1, math.nan, math.inf, "1", None, True, timedelta(0)):
    bad(f"ttl {_ttl}", ConfigError, f"ttl {SECONDS}", methodcaller("register", GOOD, ttl=_ttl))
bad("long ttl", ConfigError, "ttl must be at most", methodcaller("register", GOOD, ttl=2592001))
STATES: dict[str, tuple[dict[str, Any], str]] = {
    "nan": ({"x": math.nan}, "state must hold finite numbers"),
    "infinity": ({"x": [math.inf]}, "state must hold finite numbers"),
    "large": ({"x": LARGE}, "state must be at most 65536 bytes"),
    "deep": ({"x": nested(101)}, "state must be nested at most 100 deep"),
    "very deep": ({"x": nested(50_000)}, "state must be nested at most 100 deep"),
    "opaque": ({"x": object()}, "state must be encodable"),
    "huge": ({"x": 2**64}, "state must be encodable"),
    "surrogate": ({"x": "\ud800"}, "state must be encodable"),
}
for _name, (_state, _message) in STATES.items():
    bad(
        f"register {_name}",
        CodecError,
        f"node 'b': {_message}",
        methodcaller("register", [GOOD, Node("b", state=_state)]),
    )
    bad(
        f"heartbeat {_name}",
        CodecError,
        f"node 'there': {_message}",
        methodcaller("heartbeat", "there", _state),
    )
    bad(
        f"heartbeats {_name}",
        CodecError,
        f"node 'b': {_message}",
        methodcaller("heartbeats", {"there": {"x": 1}, "b": _state}),
    )
bad(
    "labels",
    CodecError,
    "node 'b': labels must be at most 65536 bytes",
    methodcaller("register", [GOOD, Node("b", labels={"x": LARGE})]),
)
STATE = "state must be a mapping with str keys, or None"
bad("state 5", ConfigError, STATE, methodcaller("heartbeat", "there", 5))
bad("state keys", ConfigError, STATE, methodcaller("heartbeat", "there", {1: 1}))
bad("states", ConfigError, "states must be a mapping", methodcaller("heartbeats", ["there"]))
ID = "id must be a str of 1 to 200 characters"
for _id in ("", "x" * 201, 5, None, b"there", ["there"]):
    bad(f"heartbeat {_id!r:.20}", ConfigError, ID, methodcaller("heartbeat", _id))
    bad(f"drain {_id!r:.20}", ConfigError, ID, methodcaller("drain", _id))
    bad(f"remove {_id!r:.20}", ConfigError, ID, methodcaller("remove", _id))
    bad(f"reserve {_id!r:.20}", ConfigError, ID, methodcaller("reserve", _id))
bad("heartbeats id", ConfigError, ID, methodcaller("heartbeats", {"there": {"x": 1}, "": None}))
bad("surrogate id", ConfigError, "id must be encodable", methodcaller("drain", "\ud800"))
for _lease in (0, -1.0, math.nan, math.inf, "1", None, True):
    bad(
        f"lease {_lease}",
        ConfigError,
        f"lease {SECONDS}",
        methodcaller("reserve", "a", lease=_lease),
    )
    bad(f"renewal {_lease}", ConfigError, f"lease {SECONDS}", methodcaller("renew", "a", _lease))
SLOTS = "slots must be"
for _slots in (5, None, b"x", [5], [""], ""):
    bad(f"release {_slots!r}", ConfigError, SLOTS, methodcaller("release", _slots))
    bad(f"renew {_slots!r}", ConfigError, SLOTS, methodcaller("renew", _slots))
bad("gone", NodeNotFoundError, "'none'", methodcaller("heartbeat", "none", {"x": 1}))
bad("drain gone", NodeNotFoundError, "'none'", methodcaller("drain", "none"))
bad("remove gone", NodeNotFoundError, "'none'", methodcaller("remove", "none"))
bad("reserve gone", NodeNotFoundError, "'none'", methodcaller("reserve", "none"))


async def test_bad_calls_change_nothing() -> None:
    """Each error states the rule and the value; the good part of the call is not written either."""
    async with ground() as it:
        await it.nodes.register(Node("there", state={"x": 0}), ttl=600.0)
        before = await it.dump()
        for name, (call, kind, message) in BAD_CALLS.items():
            with pytest.raises(kind) as caught:
                await call(it.nodes)
            assert message in str(caught.value), name
            assert len(str(caught.value)) < 500
            assert before == await it.dump(), name


async def test_bad_calls_on_an_empty_server() -> None:
    """A bad call creates nothing, not even an epoch."""
    async with ground() as it:
        for name, (call, kind, _) in BAD_CALLS.items():
            with pytest.raises((kind, NodeNotFoundError)):
                await call(it.nodes)
            assert 0 == await it.call("DBSIZE"), name
        assert {"a": None} == await it.nodes.heartbeats({"a": {}})
        assert [False] == await it.nodes.renew("x")
        assert [] == await it.nodes.renew([])
        assert {} == await it.nodes.heartbeats({})
        await it.nodes.release(["x", "x"])
        await it.nodes.release([])
        assert 0 == await it.call("DBSIZE")


@every_kind
async def test_what_just_fits(kind: Kind) -> None:
    """Values exactly at the limits are allowed."""
    async with ground(kind) as it:
        largest = "x" * (65536 - 3 - 3)  # the map, its key, and the length prefix
        state: dict[str, Any] = {"x": largest}
        await it.nodes.register(Node("x" * 200, capacity=2**31 - 1, state=state), ttl=2592000)
        await it.nodes.heartbeat("x" * 200, {"x": nested(99)})
        await it.nodes.register(Node("b", pool="p" * 200, capacity=0), ttl=timedelta(days=30))
        with pytest.raises(NoCapacityError):
            await it.nodes.reserve("b")
        found = await it.fleet()
        assert 2**31 - 1 == found["x" * 200].capacity
        assert nested(99) == found["x" * 200].state["x"]


# -- heartbeats ------------------------------------------------------------------------------


@every_kind
async def test_heartbeats(kind: Kind) -> None:
    """A heartbeat restarts the ttl, and publishes the whole node only if it has a new state."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", state={"x": 1}), ttl=10.0)
        async with it.published() as messages:
            assert 2 == await it.nodes.heartbeat("a")
            assert 3 == await it.nodes.heartbeat("a", {"x": 1})
            assert 4 == await it.nodes.heartbeat("a", {"x": 2})
            assert 5 == await it.nodes.heartbeat("a", {})
            assert {"b": None, "a": 6} == await it.nodes.heartbeats({"b": {"x": 1}, "a": {"x": 3}})
        rows = [row for message in messages for row in message.rows]
        assert [2, 3, 4, 5, 6] == [row.seq for row in rows]
        assert [2, 3, 0, 0, 0] == [row.version for row in rows]
        assert [None, None, {"x": 2}, {}, {"x": 3}] == [row.node and row.node.state for row in rows]
        assert {10.0} == {row.ttl for row in rows}
        for _ in range(3):
            await it.later(8)
            await it.nodes.heartbeat("a")
        assert ["a"] == await it.ids()


@every_kind
async def test_a_ttl_that_ran_out(kind: Kind) -> None:
    """The next call of any kind removes the node, without any feed."""
    async with ground(kind) as it:
        for call in (it.nodes.heartbeat, it.nodes.drain, it.nodes.reserve):
            await it.nodes.register(Node("a"), ttl=10.0)
            await it.later(9)
            assert 2 == await it.nodes.heartbeat("a")
            await it.later(11)
            with pytest.raises(NodeNotFoundError, match="'a'"):
                await call("a")
            assert [] == await it.ids()
        await it.nodes.remove("a")
        assert 1 == await it.nodes.register(Node("a"))


@every_kind
async def test_a_lapse_is_published_once(kind: Kind) -> None:
    """The lapse is published once, however many calls sweep at the same time."""
    async with ground(kind) as it:
        await it.nodes.register([Node(f"{n}") for n in range(5)], ttl=10.0)
        await it.nodes.register(Node("stays"), ttl=100.0)
        async with it.published() as messages:
            await it.later(11)
            await asyncio.gather(*(it.pulse() for _ in range(20)))
        rows = [row for message in messages for row in message.rows]
        assert sorted("01234") == sorted(row.id for row in rows)
        assert [(None, 0)] * 5 == [(row.node, row.version) for row in rows]
        assert ["stays"] == await it.ids()


# -- draining and removing -------------------------------------------------------------------


@every_kind
async def test_draining(kind: Kind) -> None:
    """A draining node gets no new work; heartbeats do not end the drain, but registering does."""
    async with ground(kind) as it:
        await it.nodes.register(Node("a", capacity=5))
        slot = await it.nodes.reserve("a")
        assert 3 == await it.nodes.drain("a")
        assert 3 == await it.nodes.drain("a")
        assert 4 == await it.nodes.heartbeat("a", {"x": 1})
        assert NodeStatus.DRAINING is (await it.fleet())["a"].status
        with pytest.raises(NoCapacityError, match="'a'"):
            await it.nodes.reserve("a")
        assert [True] == await it.nodes.renew(slot)
        await it.nodes.release(slot)
        assert 0 == await it.jobs("a")
        await it.nodes.register(Node("a", capacity=5))
        await it.nodes.reserve("a")


@every_kind
async def test_removing(kind: Kind) -> None:
    """Removing may be repeated while the tombstone lasts, and is published once."""
    async with ground(kind, tombstone_ttl=60.0) as it:
        await it.nodes.register([Node("a"), Node("b")], ttl=1000)
        async with it.published() as messages:
            await it.nodes.remove("a")
            await it.nodes.remove("a")
        assert [("a", 3, None)] == [(r.id, r.seq, r.node) for m in messages for r in m.rows]
        with pytest.raises(NodeNotFoundError):
            await it.nodes.heartbeat("a")
        await it.later(59)
        await it.nodes.remove("a")
        await it.later(2)
        with pytest.raises(NodeNotFoundError):
            await it.nodes.remove("a")
        assert ["b"] == await it.ids()


@every_kind
async def test_tombstones_are_purged(kind: Kind) -> None:
    """The floor rises; a node that was registered again has no tombstone."""
    async with ground(kind, tombstone_ttl=60.0) as it:
        await it.nodes.register([Node(x) for x in "abc"], ttl=1000)
        for x in "ab":
            await it.nodes.remove(x)
        assert 1 == await it.nodes.register(Node("a"), ttl=1000)
        assert (6, 0) == (await it.pulse())[1:]
        _, message = await it.changes(3)
        assert [("b", 5, False), ("a", 6, True)] == [
            (row.id, row.seq, row.node is not None) for row in message.rows
        ]
        await it.later(61)
        assert (6, 5) == (await it.pulse())[1:]
        _, message = await it.changes(0)
        assert [("c", 3), ("a", 6)] == [(row.id, row.seq) for row in message.rows]
        assert 0 == await it.call("EXISTS", it.key("graves"))


# -- self-preservation -----------------------------------------------------------------------


async def fleet_of(it: Ground, count: int, ttl: float, prefix: str = "n") -> list[str]:
    """Register *count* nodes."""
    ids = [f"{prefix}{n:03}" for n in range(count)]
    await it.nodes.register([Node(node) for node in ids], ttl=ttl)
    return ids


@every_kind
async def test_a_share_of_a_fleet_may_lapse(kind: Kind) -> None:
    """Of a fleet of ten, three may lapse and no more; of nine, any number may."""
    async with ground(kind) as it:
        await fleet_of(it, 7, 1000.0, "stay")
        await fleet_of(it, 3, 10.0, "go")
        await it.later(11)
        await it.pulse()
        assert 7 == len(await it.ids())
    async with ground(kind) as it:
        await fleet_of(it, 6, 1000.0, "stay")
        await fleet_of(it, 4, 10.0, "go")
        await it.later(11)
        await it.pulse()
        assert 10 == len(await it.ids())
    async with ground(kind) as it:
        await fleet_of(it, 9, 10.0)
        await it.later(11)
        await it.pulse()
        assert [] == await it.ids()


@every_kind
async def test_a_frozen_fleet_thaws(kind: Kind) -> None:
    """Nodes that send heartbeats again are kept; the few silent ones are then removed."""
    async with ground(kind) as it:
        ids = await fleet_of(it, 20, 10.0)
        await it.later(11)
        await it.pulse()
        with pytest.raises(NoCapacityError):
            await it.nodes.reserve(ids[0])
        versions = await it.nodes.heartbeats(dict.fromkeys(ids[:15]))
        assert {2} == set(versions.values())
        await it.pulse()
        assert ids[:15] == await it.ids()
        await it.later(9)
        await it.pulse()
        assert ids[:15] == await it.ids()


@every_kind
async def test_a_mass_lapse_ends(kind: Kind) -> None:
    """Nodes that stay silent are removed, and removals do not stay stopped forever."""
    async with ground(kind, mass_lapse_delay=60.0) as it:
        ids = await fleet_of(it, 20, 10.0)
        await fleet_of(it, 10, 1000.0, "stay")
        await it.later(11)
        for step in (0, 30, 29):
            await it.later(step)
            await it.pulse()
            assert 30 == len(await it.ids())
        await it.later(2)
        await it.pulse()
        assert 10 == len(await it.ids())
        # A few nodes that lapse soon after are removed at once.
        await it.nodes.register([Node(node) for node in ids[:2]], ttl=1.0)
        await it.later(2)
        await it.pulse()
        assert 10 == len(await it.ids())
        # A new mass lapse has its own delay.
        await fleet_of(it, 20, 10.0, "more")
        await it.later(40)
        await it.pulse()
        await it.later(59)
        await it.pulse()
        assert 30 == len(await it.ids())


@every_kind
async def test_small_bites(kind: Kind) -> None:
    """Removals within half a minute add up, so a fleet is not lost bit by bit."""
    async with ground(kind) as it:
        for n in range(10):
            await fleet_of(it, 2, 10.0 + 2 * n, f"b{n}-")
        await it.later(9)
        left: list[int] = []
        for _ in range(6):
            await it.later(2)
            await it.pulse()
            left.append(len(await it.ids()))
        # Three times two nodes are 30 % of twenty.
        assert [18, 16, 14, 14, 14, 14] == left


@every_kind
async def test_a_trickle_is_no_trouble(kind: Kind) -> None:
    """A fleet may shrink by a few nodes at a time, over minutes."""
    async with ground(kind) as it:
        for n in range(15):
            await fleet_of(it, 2, 10.0 + 31 * n, f"b{n}-")
        left: list[int] = []
        await it.later(11)
        for _ in range(11):
            await it.pulse()
            left.append(len(await it.ids()))
            await it.later(31)
        assert [*range(28, 7, -2)] == left


@every_kind
async def test_a_large_fleet_goes_in_steps(kind: Kind) -> None:
    """A sweep removes at most 200; the next call continues, even when forced."""
    async with ground(kind, mass_lapse_delay=5.0) as it:
        await fleet_of(it, 700, 10.0)
        await it.later(11)
        await it.pulse()
        await it.later(6)
        left: list[int] = []
        for _ in range(4):
            await it.pulse()
            left.append(len(await it.ids()))
        assert [500, 300, 100, 0] == left
