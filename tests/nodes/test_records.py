"""``MessageReader`` parses what the registry writes, and refuses everything else."""

from __future__ import annotations

import asyncio
import math
import random
import struct
from collections.abc import Generator, Mapping
from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rxdispatch.config import FeedSettings
from rxdispatch.errors import CodecError
from rxdispatch.hub import Hub, connect
from rxdispatch.node import Node, NodeStatus
from rxdispatch.nodes.engine import FleetEngine
from rxdispatch.nodes.records import (
    MESSAGE_LIMIT,
    RECORD_LIMIT,
    MessageReader,
    pack_record,
    pack_spec,
    pack_state,
)
from rxdispatch.store.embedded.server import EmbeddedServer

EPOCH = bytes(range(16))
HEAD = struct.Struct(">B16sQI")
ROW = struct.Struct(">BQIHI")

texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=200)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
    | st.binary(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
nodes = st.builds(
    Node,
    names,
    pool=names,
    capacity=st.integers(0, 2**31 - 1),
    labels=st.dictionaries(texts, texts, max_size=4),
    state=st.dictionaries(texts, values, max_size=6),
)


def row(kind: int, name: str, seq: int, body: bytes = b"", ttl: int = 30_000) -> bytes:
    """Return a row."""
    encoded = name.encode()
    return ROW.pack(kind, seq, ttl, len(encoded), len(body)) + encoded + body


def message(first: int, *rows: bytes, count: int | None = None) -> bytes:
    """Return a message of these rows."""
    length = len(rows) if count is None else count
    return HEAD.pack(1, EPOCH, first, length) + b"".join(rows)


class Server:
    """A loop and a hub that last for all examples of a test."""

    def __init__(self) -> None:
        self.runner = asyncio.Runner()
        self.server = self.runner.run(EmbeddedServer.start())
        self.hub: Hub = connect(self.server.target.safe)
        self.runner.run(self.hub.__aenter__())

    def close(self) -> None:
        """Close the loop, the hub and the server."""
        self.runner.run(self.hub.__aexit__(None, None, None))
        self.runner.run(self.server.stop())
        self.runner.close()


@pytest.fixture(scope="module")
def server() -> Generator[Server]:
    """Run a server for all examples."""
    found = Server()
    yield found
    found.close()


@settings(deadline=None, max_examples=100)
@given(found=st.lists(nodes, max_size=5, unique_by=lambda node: node.id), states=st.data())
def test_what_is_written_is_read(server: Server, found: list[Node], states: Any) -> None:
    """Any node is read back unchanged from a list and from a look-up."""
    news: dict[str, Mapping[str, Any]] = {
        node.id: states.draw(st.dictionaries(texts, values, max_size=3)) for node in found
    }

    async def there_and_back() -> tuple[bytes, bytes, bytes]:
        hub = server.hub
        engine = FleetEngine(hub.client, "rxd", FeedSettings())
        await hub.client.call("forget", "FLUSHALL")
        await hub.nodes.register(found)
        await engine.pulse()
        before = (await engine.changes(0, 100)).message
        await hub.nodes.heartbeats(news)
        after = (await engine.changes(0, 100)).message
        looked = (await engine.lookup([node.id for node in found])).message if found else b""
        return before, after, looked

    before, after, looked = server.runner.run(there_and_back())
    read = MessageReader().message(before)
    assert (0, len(found)) == (read.bad, read.length)
    for expected, actual in zip(found, read.rows, strict=True):
        node = actual.node
        assert node is not None
        assert (expected.id, expected.pool, expected.capacity) == (
            node.id,
            node.pool,
            node.capacity,
        )
        assert dict(expected.labels) == dict(node.labels)
        assert dict(expected.state) == dict(node.state)
        assert (1, 0, NodeStatus.READY) == (node.version, node.current_jobs, node.status)
    again = MessageReader().message(after)
    assert {name: dict(state) for name, state in news.items()} == {
        r.id: dict(r.node.state) for r in again.rows if r.node is not None
    }
    if found:
        rows = MessageReader().message(looked).rows
        assert [r[:4] for r in again.rows] == [r[:4] for r in rows]


@given(nodes)
def test_records_of_a_snapshot(node: Node) -> None:
    """A record of ``pack_record`` parses to the same node."""
    draining = node._marked(NodeStatus.DRAINING)
    for one in (node, draining):
        assert one == MessageReader().record(one.id, one.seq, pack_record(one))


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Arbitrary bytes raise nothing but ValueError."""
    reader = MessageReader()
    with suppress(ValueError):
        reader.message(data)
    with suppress(ValueError):
        reader.record("a", 1, data)


@given(st.binary(max_size=200), st.integers(0, 255), st.integers(0, 4))
def test_any_row(body: bytes, kind: int, count: int) -> None:
    """In a complete message, bad rows are counted and the others are parsed."""
    good = row(1, "good", 7, pack_record(Node("good")))
    data = message(5, *[row(kind, "a", 6, body)] * count, good)
    found = MessageReader().message(data)
    assert count + 1 == len(found.rows) + found.bad
    assert ("good", 7) == (found.rows[-1].id, found.last)


@given(st.lists(nodes, min_size=1, max_size=3), st.randoms(use_true_random=False))
def test_mutated_messages(found: list[Node], rng: random.Random) -> None:
    """Changed, missing or additional bytes raise nothing but ValueError, and reading ends."""
    rows = [row(1, node.id, n, pack_record(node)) for n, node in enumerate(found, 1)]
    whole = message(1, *rows, row(2, "gone", 9), row(3, "beats", 10, struct.pack(">Q", 4)))
    reader = MessageReader()
    for _ in range(30):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            at = rng.randrange(len(data))
            change = rng.randrange(3)
            if change == 0:
                data[at] = rng.randrange(256)
            elif change == 1:
                del data[at : at + rng.randint(1, 8)]
            else:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            if not data:
                break
        try:
            read = reader.message(bytes(data))
        except ValueError:
            continue
        for one in read.rows:
            if one.node is not None:
                # Every parsed node must be usable.
                assert one.node == one.node
                assert repr(one.node)


@pytest.mark.parametrize("size", range(29))
def test_a_message_that_is_cut(size: int) -> None:
    """A message that was cut short is refused, even if the cut is in its head."""
    with pytest.raises(ValueError, match=r"^message must be whole"):
        MessageReader().message(message(1)[:size])


BAD_MESSAGES = {
    "another format": (b"\x02" + message(1)[1:], "format must be 1, got 2"),
    "too few rows": (message(1, count=1), "message must be whole"),
    "endless": (message(1, row(2, "a", 1), count=2**32 - 1), "message must be whole"),
    "too many rows": (message(1, row(2, "a", 1), count=0), "message must end with its last row"),
    "half a row": (message(1, row(2, "abc", 1)[:-1]), "message must hold whole rows"),
}


@pytest.mark.parametrize("what", BAD_MESSAGES)
def test_messages_that_are_none(what: str) -> None:
    """Invalid messages are refused as a whole."""
    data, rule = BAD_MESSAGES[what]
    with pytest.raises(ValueError, match=rule):
        MessageReader().message(data)


def with_state(state: Any) -> bytes:
    """Return a record with the packed state *state*."""
    packed = state if isinstance(state, bytes) else msgspec.msgpack.encode(state)
    return pack_record(Node("a", state={}))[:-1] + packed


def nested(depth: int) -> bytes:
    """Return a mapping with nested lists."""
    return b"\x81\xa1x" + b"\x91" * depth + b"\x01"


BAD_RECORDS = {
    "empty": b"",
    "cut": pack_record(Node("a"))[:20],
    "no spec": pack_record(Node("a"))[:34],
    "another format": b"\x02" + pack_record(Node("a"))[1:],
    "another status": b"\x01\x02" + pack_record(Node("a"))[2:],
    "a list for a state": with_state([1]),
    "no state": with_state(b""),
    "two states": with_state(b"\x80\x80"),
    "keys that are no text": with_state({1: 1}),
    "nan": with_state({"x": math.nan}),
    "infinity": with_state({"x": [-math.inf]}),
    "an extension": with_state({"x": msgspec.msgpack.Ext(5, b"x")}),
    "too deep": with_state(nested(101)),
    "much too deep": with_state(nested(50_000)),
    "text that is none": with_state(b"\x81\xa1x\xa1\xff"),
}


@pytest.mark.parametrize("what", BAD_RECORDS)
def test_records_that_are_none(what: str) -> None:
    """A bad record raises ValueError; within a message, its row is skipped."""
    record = BAD_RECORDS[what]
    with pytest.raises(ValueError, match=r"."):
        MessageReader().record("a", 1, record)
    read = MessageReader().message(message(1, row(1, "a", 1, record), row(2, "b", 2)))
    assert (1, ["b"], 2) == (read.bad, [r.id for r in read.rows], read.last)


def test_rows_that_are_none() -> None:
    """Rows of unknown kind, too long, too short, without a name, or not text are skipped."""
    bad = [
        row(0, "a", 1),
        row(4, "a", 1),
        row(2, "a", 1, b"x"),
        row(3, "a", 1),
        row(3, "a", 1, b"1234567"),
        row(1, "", 1, pack_record(Node("a"))),
        row(2, "a", 1).replace(b"a", b"\xff"),
    ]
    read = MessageReader().message(message(1, *bad))
    assert (len(bad), []) == (read.bad, read.rows)


def test_what_a_row_holds() -> None:
    """A row holds a node and its ttl, or a heartbeat and its version, or a removal."""
    node = Node("a", state={"x": 1}, version=3)
    read = MessageReader().message(
        message(
            4,
            row(1, "a", 4, pack_record(node), ttl=1500),
            row(3, "a", 5, struct.pack(">Q", 4), ttl=2000),
            row(2, "a", 6, ttl=0),
        )
    )
    assert (EPOCH, 4, 3, 0, 6) == (read.epoch, read.first, read.length, read.bad, read.last)
    one, two, three = read.rows
    assert ("a", 4, 0, 1.5) == (one.id, one.seq, one.version, one.ttl)
    assert {"x": 1} == (one.node and dict(one.node.state))
    assert ("a", 5, None, 4, 2.0, 0, 0.0) == two
    assert ("a", 6, None, 0, 0.0, 0, 0.0) == three


def test_specs_are_shared() -> None:
    """Nodes with the same pool and labels share one mapping; so do those without labels."""
    reader = MessageReader()
    record = pack_record(Node("a", labels={"zone": "a"}))
    one, two = reader.record("a", 1, record), reader.record("b", 2, record)
    assert one.labels is two.labels
    bare = [MessageReader().record("a", 1, pack_record(Node("a", pool=pool))) for pool in "pq"]
    assert bare[0].labels is bare[1].labels


def test_new_specs_without_end_are_not_kept() -> None:
    """Labels that change all the time do not fill the memory."""
    reader = MessageReader()
    for n in range(10_000):
        reader.record("a", 1, pack_record(Node("a", labels={"n": f"{n}"})))
    assert len(reader._specs) <= 4096


def test_states_are_read_late() -> None:
    """A state stays packed until it is read, and is then a read-only mapping."""
    node: Any = MessageReader().record("a", 1, pack_record(Node("a", state={"x": [1]})))
    assert isinstance(node._state, bytes)
    assert {"x": [1]} == dict(node.state)
    assert node.state is node.state
    with pytest.raises(TypeError):
        node.state["y"] = 1


def test_limits() -> None:
    """Packed data may have exactly 64 KiB; the errors name the node but not the state."""
    assert RECORD_LIMIT == len(pack_state("a", {"x": "x" * (RECORD_LIMIT - 6)}))
    with pytest.raises(CodecError, match=r"^node 'a': state must be at most 65536 .* got 65537$"):
        pack_state("a", {"x": "x" * (RECORD_LIMIT - 5)})
    with pytest.raises(CodecError, match=r"^node 'a': labels must be at most 65536 bytes, got"):
        pack_spec(Node("a", labels={"x": "x" * RECORD_LIMIT}))
    assert MESSAGE_LIMIT > 262144 + 2 * RECORD_LIMIT + 1000
