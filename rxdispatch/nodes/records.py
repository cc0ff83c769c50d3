"""The wire format of nodes: specs, records, and the rows of messages."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from rxdispatch.errors import CodecError
from rxdispatch.node import NOTHING, Node, NodeStatus
from rxdispatch.payload_rules import check_payload, maybe_unsafe, too_deep

__all__ = [
    "MESSAGE_LIMIT",
    "RECORD_LIMIT",
    "Message",
    "MessageReader",
    "NodeRow",
    "pack_record",
    "pack_spec",
    "pack_state",
]

RECORD_LIMIT: Final = 65536
"""The most bytes that a node's encoded state may have, and its encoded pool and labels."""

MESSAGE_LIMIT: Final = 4 * 1024 * 1024
"""The most bytes of a message that is parsed; the registry publishes far shorter ones."""

_FORMAT: Final = 1
_RECORD, _TOMBSTONE, _TOUCH = 1, 2, 3
_HEAD: Final = struct.Struct(">B16sQI")
_ROW: Final = struct.Struct(">BQIHI")
_NODE: Final = struct.Struct(">BBQQIIII")
_VERSION: Final = struct.Struct(">Q")
_STATUS: Final = (NodeStatus.READY, NodeStatus.DRAINING)
_SPECS: Final = 4096
_SCALARS: Final = frozenset({str, int, bool, bytes, type(None)})

_encode = msgspec.msgpack.Encoder().encode
_decode_spec = msgspec.msgpack.Decoder(tuple[str, dict[str, str]]).decode
_decode_state = msgspec.msgpack.Decoder(dict[str, Any]).decode


class NodeRow(NamedTuple):
    """
    A row of a message: a change of one node, or its present state.

    Attributes:
        id: The node's id.
        seq: The number of the change.
        node: The node; None for a removal, and for a heartbeat without news.
        version: The new version of the node, for a heartbeat without news; else 0.
        ttl: Seconds until the node lapses, unless another heartbeat comes.
        birth: The number under which this life of the node began; 0 if unknown.
        silence: Seconds since the node's last heartbeat.
    """

    id: str
    seq: int
    node: Node | None
    version: int
    ttl: float
    birth: int = 0
    silence: float = 0.0


class Message(NamedTuple):
    """
    A parsed message.

    Attributes:
        epoch: The epoch of the registry's data.
        first: The number of its first row.
        length: How many rows it has, the bad ones included.
        rows: The rows that could be parsed.
        bad: How many rows could not.
        last: The number of the last row, parsed or not; 0 without rows.
    """

    epoch: bytes
    first: int
    length: int
    rows: list[NodeRow]
    bad: int
    last: int


def pack_spec(node: Node) -> bytes:
    """
    Return pool and labels in their stored form.

    Raises:
        CodecError: If they are too large.
    """
    return _limited("labels", node.id, _encode((node.pool, dict(node.labels))))


def pack_state(node: str, state: Mapping[str, Any]) -> bytes:
    """
    Return a state in its stored form.

    Raises:
        CodecError: If it cannot be encoded, is too large, too deep, or holds NaN or infinity.
    """
    try:
        packed = _encode(dict(state))
    except RecursionError:
        raise too_deep(f"node {node!r}: state") from None
    except (TypeError, ValueError, OverflowError, msgspec.MsgspecError) as error:
        raise CodecError(f"node {node!r}: state must be encodable: {error}") from error
    _limited("state", node, packed)
    if maybe_unsafe(packed):
        check_payload(f"node {node!r}: state", packed)
    return packed


def _flat(state: dict[str, Any]) -> bool:
    """Return True if *state* holds only plain scalars; cheaper than the full check."""
    for value in state.values():
        kind = value.__class__
        if kind is float:
            if value - value != 0.0:  # infinite, or not a number
                return False
        elif kind not in _SCALARS:
            return False
    return True


def _limited(what: str, node: str, packed: bytes) -> bytes:
    if len(packed) > RECORD_LIMIT:
        rule = f"node {node!r}: {what} must be at most {RECORD_LIMIT} bytes"
        raise CodecError(rule, len(packed))
    return packed


def pack_record(node: Node) -> bytes:
    """
    Return *node* in the registry's format, with a birth and ttl of 0.

    The format has no suspect nodes, because each feed judges for itself: such a node is packed as
    ready, and its caller must keep that it was suspect.
    """
    spec, state = pack_spec(node), node._packed_state
    status = _STATUS.index(node.status) if node.status in _STATUS else 0
    head = (_FORMAT, status, node.version, 0, node.capacity, node.current_jobs, 0, len(spec))
    return _NODE.pack(*head) + spec + state


class MessageReader:
    """
    Parses messages and records; malformed bytes raise ValueError and nothing else.

    Nodes with the same pool and labels share those objects: a fleet has few different ones.
    """

    def __init__(self) -> None:
        self._specs: dict[bytes, tuple[str, Mapping[str, str]]] = {}

    def message(self, data: bytes) -> Message:
        """
        Parse a message; malformed rows are skipped and counted.

        Raises:
            ValueError: If it is not a message of this format.
        """
        rows: list[NodeRow] = []
        bad = seq = 0
        try:
            form, epoch, first, count = _HEAD.unpack_from(data)
            if form != _FORMAT:
                raise ValueError(f"format must be {_FORMAT}, got {form}")
            at = _HEAD.size
            for _ in range(count):
                kind, seq, remaining, id_size, size = _ROW.unpack_from(data, at)
                at += _ROW.size
                middle = at + id_size
                end = middle + size
                if end > len(data):
                    raise ValueError("message must hold whole rows")
                try:
                    name, body = data[at:middle].decode(), data[middle:end]
                    ttl = remaining / 1000
                    if kind == _RECORD:
                        node, birth, whole = self._read(name, seq, body)
                        rows.append(NodeRow(name, seq, node, 0, ttl, birth, whole - ttl))
                    else:
                        rows.append(NodeRow(name, seq, None, _news(kind, body), ttl))
                except (ValueError, RecursionError, msgspec.MsgspecError):
                    bad += 1
                at = end
        except struct.error as error:
            raise ValueError(f"message must be whole: {error}") from None
        if at != len(data):
            raise ValueError("message must end with its last row")
        return Message(epoch, first, count, rows, bad, seq)

    def record(self, name: str, seq: int, record: bytes) -> Node:
        """
        Parse a stored node.

        Raises:
            ValueError: If it is malformed, or its state holds NaN, infinity or extension types.
        """
        return self._read(name, seq, record)[0]

    def _read(self, name: str, seq: int, record: bytes) -> tuple[Node, int, float]:
        """Return the node, its birth, and its ttl in seconds."""
        try:
            head: tuple[int, ...] = _NODE.unpack_from(record)
        except struct.error:
            raise ValueError("record must be whole") from None
        form, status, version, birth, capacity, jobs, ttl, size = head
        if form != _FORMAT or status > 1 or not name:
            raise ValueError(f"record must be of format {_FORMAT}, got {form}")
        middle = _NODE.size + size
        spec = self._spec(record[_NODE.size : middle])
        state = record[middle:]
        # Checked here, so that no error reaches user code that reads the state later.
        try:
            decoded = _decode_state(state)
        except RecursionError:
            raise too_deep("state") from None
        if not _flat(decoded) and maybe_unsafe(state):
            check_payload("state", state)
        node = Node._trusted(name, spec, capacity, jobs, state, _STATUS[status], version, seq)
        return node, birth, ttl / 1000

    def _spec(self, packed: bytes) -> tuple[str, Mapping[str, str]]:
        spec = self._specs.get(packed)
        if spec is None:
            pool, labels = _decode_spec(packed)
            spec = (pool, MappingProxyType(labels) if labels else NOTHING)
            if len(self._specs) >= _SPECS:
                self._specs.clear()
            self._specs[packed] = spec
        return spec


def _news(kind: int, body: bytes) -> int:
    """Return the version in a heartbeat without news; 0 for a removal."""
    if kind == _TOUCH and len(body) == _VERSION.size:
        version: int = _VERSION.unpack(body)[0]
        return version
    if kind == _TOMBSTONE and not body:
        return 0
    raise ValueError(f"row must be of a known kind, got {kind}")
