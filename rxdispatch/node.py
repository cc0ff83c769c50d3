"""Nodes, slots and changes: the values that a feed returns and emits."""

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

__all__ = ["NOTHING", "ChangeKind", "Mode", "Node", "NodeChange", "NodeStatus", "Slot", "node_id"]

ChangeKind = Literal["added", "updated", "suspect", "removed", "synced"]

NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
CAPACITY_LIMIT: Final = 2**31 - 1

_encode = msgspec.msgpack.Encoder().encode
_decode_state = msgspec.msgpack.Decoder(dict[str, Any]).decode


class NodeStatus(StrEnum):
    """
    Whether a node may be given work.

    ``SUSPECT`` is the judgement of one feed: the node sent no heartbeat for its ttl, or the feed
    can no longer prove that its data is fresh.
    """

    READY = "ready"
    DRAINING = "draining"
    SUSPECT = "suspect"


class Mode(StrEnum):
    """
    Where a feed gets its data from.

    ``NORMAL``: from the server. ``L2_ONLY``: the server is unreachable, and the snapshot on disk
    is recent enough. ``LOCAL_ONLY``: neither; the feed has only the memory of the process.
    """

    NORMAL = "NORMAL"
    L2_ONLY = "L2_ONLY"
    LOCAL_ONLY = "LOCAL_ONLY"


@attrs.define(slots=True, weakref_slot=False, eq=False, repr=False)
class _NodeFields:
    """
    The fields of a node that is not frozen yet.

    A frozen class sets its fields slowly. A feed makes tens of thousands of nodes a second, from
    data that was checked when it was written. So it fills these fields, then changes the class.
    """

    id: str
    pool: str = attrs.field(kw_only=True, default="default")
    capacity: int = attrs.field(kw_only=True, default=1)
    current_jobs: int = attrs.field(kw_only=True, default=0)
    labels: Mapping[str, str] = attrs.field(kw_only=True, default=NOTHING)
    # MessagePack as it arrived, until the first read: most states are never read, and a dict takes
    # five times as much memory.
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
        labels: Short strings that criteria filter by, such as ``{"zone": "a"}``; read-only.
        state: Any data that the node reports with its heartbeats; str keys, values that msgspec
            can encode as MessagePack, without NaN or infinity. Read-only.

    The registry sets the others:

    Attributes:
        current_jobs: How many slots are reserved.
        status: Whether the node may be given work.
        version: The number of this node's changes, from 1; meant for people.
        seq: The number of its last change, in the order of all changes; feeds use this one.

    Raises:
        ConfigError: If an argument is invalid.

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
            # attrs.evolve() of a feed's node passes bytes; check those that a caller made up.
            _check_packed(self._state)
        elif self._state is not NOTHING:
            object.__setattr__(self, "_state", _state(self._state))

    @classmethod
    def _trusted(
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
        """Return a node from valid fields; *spec* is pool and labels, *state* may be packed."""
        # Field by field, which takes a third of the time of a call with keywords.
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
        """What the node reports about itself."""
        held = self._state
        if isinstance(held, bytes):
            held = MappingProxyType(_decode_state(held))
            object.__setattr__(self, "_state", held)
        return held

    @property
    def _packed_state(self) -> bytes:
        """The state as MessagePack."""
        held = self._state
        return held if isinstance(held, bytes) else _encode(dict(held))

    @property
    def room(self) -> int:
        """How many more jobs the node takes; 0 unless it is ready."""
        if self.status is not NodeStatus.READY:
            return 0
        return max(0, self.capacity - self.current_jobs)

    def _renewed(self, version: int, seq: int) -> Node:
        """Return this node after a heartbeat that changed nothing else."""
        return self._but(self.status, version, seq)

    def _marked(self, status: NodeStatus) -> Node:
        """Return this node with another *status*."""
        return self._but(status, self.version, self.seq)

    def _but(self, status: NodeStatus, version: int, seq: int) -> Node:
        spec = (self.pool, self.labels)
        jobs = self.current_jobs
        return Node._trusted(self.id, spec, self.capacity, jobs, self._state, status, version, seq)

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
    A change of a node, or the message that a feed has caught up.

    Attributes:
        kind: ``added``, ``updated``, ``suspect``, ``removed``, or ``synced``: the feed had missed
            changes, and has caught up.
        node: The node after the change; its last state for ``removed``; None for ``synced``.
        previous: The node before the change; None for ``added`` and ``synced``.
        epoch: Identifies the life of the registry's data; a new one means that the server has lost
            or replaced its data.
        seq: The number of the change in the order of all changes; for ``synced`` the number up to
            which the feed has seen everything.
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
        id: The id of the reservation.
        node: The node, this job included.
        deadline: The time on *clock* at which the lease ends unless it is renewed.
        clock: Returns the time in seconds; it keeps running while the host is suspended.
        revoked: True once the process knows that the reservation is over: the registry has said so,
            or the lease has ended without a renewal.
    """

    id: str
    node: Node
    deadline: float = math.inf
    clock: Callable[[], float] = time.monotonic
    revoked: bool = False

    @property
    def lost(self) -> bool:
        """
        True if another process may have the slot: the node was removed, or the lease has ended.

        Each access computes it, so it is correct even right after a pause of the process, of its
        loop or of the host. A slot that was given back in time is not lost.
        """
        return self.revoked or self.clock() >= self.deadline


def node_id(value: Any) -> str:
    """
    Return *value* if it is a valid id of a node.

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


def _check_packed(given: bytes) -> None:
    try:
        _decode_state(given)
    except (ValueError, RecursionError):
        raise ConfigError("state must be a mapping with str keys", given) from None


def _restore(fields: dict[str, Any]) -> Node:
    for name in ("labels", "state"):
        fields[name] = fields[name] or NOTHING
    return Node(**fields)
