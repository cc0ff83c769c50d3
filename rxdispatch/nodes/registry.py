"""``Registry``: registers nodes, records their heartbeats, and grants slots."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any, Final, overload

from uuid_utils import uuid7

from rxdispatch.errors import ConfigError, NoCapacityError, NodeNotFoundError
from rxdispatch.node import Node, node_id
from rxdispatch.nodes.engine import FleetEngine, Registration
from rxdispatch.nodes.records import MessageReader, pack_spec, pack_state
from rxdispatch.seconds import seconds

__all__ = ["TTL_LIMIT", "Registry"]

_BATCH: Final = 256
TTL_LIMIT: Final = 30 * 86400.0


class Registry:
    """
    The nodes of a namespace, for the agents that report them; ``hub.nodes``.

    Every call is one atomic step on the server (one for every 256 nodes or slots), which also
    publishes the change to all feeds. A node that sends no heartbeat for its ttl is removed.

    Args:
        engine: The fleet on the server.

    All methods raise StoreUnavailableError if the server does not answer in time, and are safe to
    repeat.
    """

    def __init__(self, engine: FleetEngine) -> None:
        self._engine = engine

    @overload
    async def register(self, nodes: Node, ttl: float | timedelta = 30.0) -> int: ...

    @overload
    async def register(self, nodes: Iterable[Node], ttl: float | timedelta = 30.0) -> list[int]: ...

    async def register(
        self, nodes: Node | Iterable[Node], ttl: float | timedelta = 30.0
    ) -> int | list[int]:
        """
        Add nodes. A registered node is updated, becomes ready, and keeps its jobs.

        Args:
            nodes: One node, or several with different ids. Fields that the registry sets, such as
                ``current_jobs``, are ignored.
            ttl: Seconds without a heartbeat after which a node is removed, at most 30 days.

        Returns:
            The version of the node, or a list of versions; a new node has version 1.

        Raises:
            ConfigError: If *nodes* are not Node objects, or *ttl* is not a number of seconds > 0.
            CodecError: If a state cannot be stored, or is larger than 64 KiB.
        """
        ttl = seconds("ttl", ttl, zero=False)
        if ttl > TTL_LIMIT:
            raise ConfigError(f"ttl must be at most {TTL_LIMIT:g} s", ttl)
        single = isinstance(nodes, Node)
        rows: list[Registration] = []
        seen: set[str] = set()
        for node in _several("nodes", (nodes,) if isinstance(nodes, Node) else nodes):
            if not isinstance(node, Node):
                raise ConfigError("nodes must be rxdispatch.Node objects", node)
            if node.id in seen:
                raise ConfigError("nodes must have different ids", node.id)
            seen.add(node.id)
            state = pack_state(node.id, node.state)
            rows.append(Registration(node.id, node.capacity, ttl, pack_spec(node), state))
        versions: list[int] = []
        for at in range(0, len(rows), _BATCH):
            versions += await self._engine.register(rows[at : at + _BATCH])
        return versions[0] if single else versions

    async def heartbeat(self, node: str, state: Mapping[str, Any] | None = None) -> int:
        """
        Report that a node is alive, which restarts its ttl.

        Args:
            node: Its id.
            state: Replaces the state of the node; None keeps it. A state equal to the last one
                restarts the ttl and emits no change.

        Returns:
            Its version.

        Raises:
            NodeNotFoundError: If it is not registered, or was removed.
            CodecError: If the state cannot be stored, or is larger than 64 KiB.
        """
        return _there(node, (await self.heartbeats({node_id(node): state}))[node])

    async def heartbeats(
        self, states: Mapping[str, Mapping[str, Any] | None]
    ) -> dict[str, int | None]:
        """
        Report that several nodes are alive; for an agent that reports many.

        Args:
            states: A state or None for each id, as for :meth:`heartbeat`.

        Returns:
            The version of each node by id; None for a node that is not registered.

        Raises:
            CodecError: If a state cannot be stored; then nothing was written.
        """
        if not isinstance(states, Mapping):
            raise ConfigError("states must be a mapping from ids to states", states)
        rows = [(node_id(node), _packed(node, state)) for node, state in states.items()]
        versions: dict[str, int | None] = {}
        for at in range(0, len(rows), _BATCH):
            chunk = rows[at : at + _BATCH]
            found = await self._engine.heartbeat(chunk)
            for (node, _), version in zip(chunk, found, strict=True):
                versions[node] = version or None
        return versions

    async def drain(self, node: str) -> int:
        """
        Stop new work on a node; its running work continues. Registering it again ends the drain.

        Returns:
            Its version.

        Raises:
            NodeNotFoundError: If it is not registered.
        """
        return _there(node, (await self._engine.drain([node_id(node)]))[0])

    async def remove(self, node: str) -> None:
        """
        Remove a node at once; safe to repeat.

        Raises:
            NodeNotFoundError: If there is no such node, and none was removed recently.
        """
        _there(node, (await self._engine.remove([node_id(node)]))[0])

    async def reserve(self, node: str, *, lease: float | timedelta = 30.0) -> str:
        """
        Reserve a slot on one node; ``feed.reserve`` also chooses the node and renews the slot.

        Args:
            node: Its id.
            lease: Seconds after which the slot is free again, unless it is renewed.

        Returns:
            The slot's id, for :meth:`renew` and :meth:`release`.

        Raises:
            NodeNotFoundError: If it is not registered.
            NoCapacityError: If it is full, or draining.
        """
        lease = seconds("lease", lease, zero=False)
        slot = str(uuid7())
        chosen, refusing = await self._engine.reserve([(slot, [node_id(node)])], lease)
        if chosen[0] < 0:
            rows = [] if refusing is None else MessageReader().message(refusing).rows
            if not rows or rows[0].node is None:
                raise NodeNotFoundError(node)
            raise NoCapacityError(f"id={node!r}")
        return slot

    async def renew(
        self, slots: str | Iterable[str], lease: float | timedelta = 30.0
    ) -> list[bool]:
        """
        Hold slots for another *lease* seconds.

        Returns:
            Whether each slot is still held: False once its lease has passed, or it was released,
            or its node was removed.
        """
        ids = _slots(slots)
        lease = seconds("lease", lease, zero=False)
        held: list[bool] = []
        for at in range(0, len(ids), _BATCH):
            held += map(bool, await self._engine.renew(ids[at : at + _BATCH], lease))
        return held

    async def release(self, slots: str | Iterable[str]) -> None:
        """Give slots back; safe to repeat, even late or after the node was removed."""
        ids = _slots(slots)
        for at in range(0, len(ids), _BATCH):
            await self._engine.release(ids[at : at + _BATCH])


def _there(node: str, version: int | None) -> int:
    if not version:
        raise NodeNotFoundError(node)
    return version


def _packed(node: str, state: Mapping[str, Any] | None) -> bytes | None:
    if state is None:
        return None
    if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
        raise ConfigError("state must be a mapping with str keys, or None", state)
    return pack_state(node, state)


def _several(what: str, given: Any) -> list[Any]:
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ConfigError(f"{what} must be one or an iterable of them", given)
    return [*given]  # pyright: ignore[reportUnknownVariableType]


def _slots(given: str | Iterable[str]) -> list[str]:
    ids = [given] if isinstance(given, str) else _several("slots", given)
    for slot in ids:
        if not isinstance(slot, str) or not slot:
            raise ConfigError("slots must be ids that reserve returned", slot)
    return ids
