"""Nodes and what happens to them: the values that flow through a feed."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, Literal, cast

import attrs
import msgspec

from rxdispatch.checks import integer, key_name, strings
from rxdispatch.errors import ConfigError

__all__ = ["ChangeKind", "Mode", "Node", "NodeChange", "NodeStatus", "Slot", "node_id"]

ChangeKind = Literal["added", "updated", "suspect", "removed", "synced"]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
CAPACITY_LIMIT: Final = 2**31 - 1

_encode = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(dict[str, Any]).decode


class NodeStatus(StrEnum):
    """
    Whether a node may be given work.

    ``SUSPECT`` is the judgement of one feed: it has not heard of the node for longer than the
    node's ttl, or can no longer prove what it knows.
    """

    READY = "ready"
    DRAINING = "draining"
    SUSPECT = "suspect"


class Mode(StrEnum):
    """
    Where a feed's knowledge comes from.

    ``NORMAL``: from the server. ``L2_ONLY``: the server is away, the snapshot on disk is young
    enough. ``LOCAL_ONLY``: neither; what is in the process is all there is.
    """

    NORMAL = "NORMAL"
    L2_ONLY = "L2_ONLY"
    LOCAL_ONLY = "LOCAL_ONLY"


@attrs.define(slots=True, weakref_slot=False, eq=False, repr=False)
class _NodeFields:
    """
    The fields of a node that is not frozen yet.

    A frozen class sets its fields the slow way. Feeds, which make tens of thousands a second
    from what was checked when it was written, fill these and turn the object into a Node.
    """

    id: str
    pool: str = attrs.field(kw_only=True, default="default")
    capacity: int = attrs.field(kw_only=True, default=1)
    current_jobs: int = attrs.field(kw_only=True, default=0)
    labels: Mapping[str, str] = attrs.field(kw_only=True, default=NOTHING)
    # MessagePack as it came, until somebody asks: most states are never read, and a dict takes
    # five times the memory.
    _state: Mapping[str, Any] | bytes = attrs.field(kw_only=True, default=NOTHING, alias="state")
    status: NodeStatus = attrs.field(kw_only=True, default=NodeStatus.READY)
    version: int = attrs.field(kw_only=True, default=0)
    seq: int = attrs.field(kw_only=True, default=0)


@attrs.frozen(  # pyright: ignore[reportGeneralTypeIssues]
    slots=True, weakref_slot=False, eq=False, repr=False
)
class Node(_NodeFields):
    """
    A member of a fleet.

    Args:
        id: Unique in the fleet, 1 to 200 characters.
        pool: A group of nodes that do the same kind of work, 1 to 200 characters.
        capacity: How many jobs it takes at once, an int >= 0.
        labels: Short strings that selections ask for, such as ``{"zone": "a"}``; read-only.
        state: Whatever the node tells of itself with its heartbeats; str keys, values that
            msgspec can write as MessagePack, without NaN or infinity. Read-only.

    The others are set by the registry:

    Attributes:
        current_jobs: How many slots are reserved.
        status: Whether it may be given work.
        version: Grows by one with every change of this node, from 1; for people.
        seq: Its place in the order of all changes; what feeds go by.

    Raises:
        ConfigError: If an argument breaks its rule.

    Example:
        >>> node = Node("gpu-1", pool="gpu", capacity=8, labels={"zone": "a"})
        >>> node.pool, node.room
        ('gpu', 8)
    """

    def __attrs_post_init__(self) -> None:
        node_id(self.id)
        key_name("pool", self.pool)
        for field in ("capacity", "current_jobs"):
            value = getattr(self, field)
            integer(field, value, 0, CAPACITY_LIMIT)
        if self.labels is not NOTHING:
            object.__setattr__(self, "labels", _labels(self.labels))
        if isinstance(self._state, bytes):
            # A node of a feed that was evolved; of anything else it is no state.
            _packed_state(self._state)
        elif self._state is not NOTHING:
            object.__setattr__(self, "_state", _state(self._state))

    @classmethod
    def trusted(
        cls,
        node: str,
        spec: tuple[str, Mapping[str, str]],
        capacity: int,
        current_jobs: int,
        state: Mapping[str, Any] | bytes,
        status: NodeStatus,
        version: int,
        seq: int,
    ) -> Node:
        """Return a node of fields that are known to be good: pool and labels, packed state."""
        # One by one, which takes a third of the time of a call with keywords.
        made: Any = object.__new__(_NodeFields)
        made.id = node
        made.pool, made.labels = spec
        made.capacity = capacity
        made.current_jobs = current_jobs
        made._state = state
        made.status = status
        made.version = version
        made.seq = seq
        made.__class__ = cls
        return cast("Node", made)

    @property
    def state(self) -> Mapping[str, Any]:
        """What the node tells of itself."""
        held = self._state
        if isinstance(held, bytes):
            held = MappingProxyType(_decode_state(held))
            object.__setattr__(self, "_state", held)
        return held

    @property
    def packed_state(self) -> bytes:
        """The state as MessagePack."""
        held = self._state
        return held if isinstance(held, bytes) else _encode(dict(held))

    @property
    def room(self) -> int:
        """How many more jobs it takes; 0 unless it is ready."""
        if self.status is not NodeStatus.READY:
            return 0
        return max(0, self.capacity - self.current_jobs)

    def renewed(self, version: int, seq: int) -> Node:
        """Return this node as a later heartbeat without news left it."""
        return self._but(self.status, version, seq)

    def marked(self, status: NodeStatus) -> Node:
        """Return this node with another *status*."""
        return self._but(status, self.version, self.seq)

    def _but(self, status: NodeStatus, version: int, seq: int) -> Node:
        spec = (self.pool, self.labels)
        jobs = self.current_jobs
        return Node.trusted(self.id, spec, self.capacity, jobs, self._state, status, version, seq)

    def _facts(self) -> tuple[Any, ...]:
        return (
            *(self.id, self.pool, self.capacity, self.current_jobs, self.labels),
            *(self.state, self.status, self.version, self.seq),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Node) and self._facts() == other._facts()

    def __hash__(self) -> int:
        return hash((self.id, self.seq))

    def __repr__(self) -> str:
        jobs = f"{self.current_jobs}/{self.capacity}"
        return (
            f"Node({self.id!r}, pool={self.pool!r}, jobs={jobs}, labels={dict(self.labels)!r}, "
            f"state={dict(self.state)!r}, status={self.status.value!r}, version={self.version}, "
            f"seq={self.seq})"
        )

    def __reduce__(self) -> tuple[Any, ...]:
        # Read-only mappings cannot be pickled.
        fields: dict[str, Any] = dict(zip(_NAMES, self._facts(), strict=True))
        return _restore, ({**fields, "labels": dict(self.labels), "state": dict(self.state)},)


_NAMES: Final = (
    *("id", "pool", "capacity", "current_jobs", "labels"),
    *("state", "status", "version", "seq"),
)


class NodeChange(msgspec.Struct, frozen=True, gc=False):
    """
    Something that happened to a node, or to a feed.

    Attributes:
        kind: ``added``, ``updated``, ``suspect``, ``removed``, or ``synced``: the feed has caught
            up after having missed something.
        node: The node as it is now; as it last was, where it is removed; None for ``synced``.
        previous: The node as it was before; None where it is added.
        epoch: The life of the registry's data to which *seq* belongs; another one means that the
            server has lost or replaced its data.
        seq: The place of the change in the order of all changes, up to which the feed has seen
            everything for ``synced``.
    """

    kind: ChangeKind
    node: Node | None
    previous: Node | None
    epoch: str
    seq: int


@attrs.define(slots=True, eq=False)
class Slot:
    """
    Room for one job on a node.

    Attributes:
        id: What it is reserved under.
        node: The node as it is with this job.
        deadline: When the lease ends unless it is renewed, on *clock*.
        clock: Returns the time in seconds; it goes on while the host is suspended.
        revoked: True once the registry has said that the reservation does not hold.
    """

    id: str
    node: Node
    deadline: float = math.inf
    clock: Callable[[], float] = time.monotonic
    revoked: bool = False

    @property
    def lost(self) -> bool:
        """
        True if somebody else may have the place: the node was removed, or the lease has passed.

        It is computed when it is asked for, so it is right at once after a pause of the process,
        of its loop or of the host. A slot that was given back in time is not lost.
        """
        return self.revoked or self.clock() >= self.deadline


def node_id(value: Any) -> str:
    """
    Return *value*, which must be the id of a node.

    Raises:
        ConfigError: If it is not a str of 1 to 200 characters that UTF-8 can encode.
    """
    return key_name("id", value)


def _labels(given: Any) -> Mapping[str, str]:
    labels = strings("labels", given)
    for key, value in labels.items():
        try:
            f"{key}{value}".encode()
        except UnicodeEncodeError:
            raise ConfigError("labels must be encodable as UTF-8", {key: value}) from None
    return labels


def _state(given: Any) -> Mapping[str, Any]:
    if not isinstance(given, Mapping):
        raise ConfigError("state must be a mapping with str keys", given)
    state: dict[Any, Any] = {**given}
    if not all(isinstance(key, str) for key in state):
        raise ConfigError("state must be a mapping with str keys", given)
    return MappingProxyType(state)


def _packed_state(given: bytes) -> None:
    try:
        _decode_state(given)
    except (ValueError, RecursionError):
        raise ConfigError("state must be a mapping with str keys", given) from None


def _restore(fields: dict[str, Any]) -> Node:
    for name in ("labels", "state"):
        fields[name] = fields[name] or NOTHING
    return Node(**fields)
