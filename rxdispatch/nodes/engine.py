"""``FleetEngine``: the atomic steps of a fleet, as scripts on a server."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple, cast

from redis.exceptions import ResponseError

from rxdispatch.config import FeedSettings
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.nodes.keys import FleetKeys
from rxdispatch.relay import Relay
from rxdispatch.store.client import Client
from rxdispatch.store.connections.wire import Value
from rxdispatch.store.fence import Fence
from rxdispatch.store.refusal import state_of
from rxdispatch.store.scripts import load_script

__all__ = ["EPOCH_SIZE", "FleetEngine", "Page", "Position", "Registration"]

EPOCH_SIZE: Final = 16
"""The length of an epoch in bytes."""

_SCRIPTS: Final = {
    name: load_script("rxdispatch.nodes", "prelude", name)
    for name in (
        *("register", "heartbeat", "drain", "remove", "reserve", "release", "renew"),
        *("pulse", "changes", "lookup"),
    )
}


class Registration(NamedTuple):
    """A node to register; *ttl* in seconds, *spec* and *state* packed."""

    id: str
    capacity: int
    ttl: float
    spec: bytes
    state: bytes


class Position(NamedTuple):
    """
    How far the registry's log reaches.

    Attributes:
        epoch: The epoch of its data; empty if there was never any.
        seq: The number of the last change.
        floor: A reader that has seen only changes below this number has missed removals, and must
            relist.
    """

    epoch: bytes
    seq: int
    floor: int


class Page(NamedTuple):
    """Rows as of *position*, as a message; *more* tells whether there are further rows."""

    position: Position
    message: bytes
    more: bool


class FleetEngine:
    """
    One fleet on one server, shared by the registry and the feeds of a hub.

    Every step is safe to repeat: a heartbeat that counts twice only raises the version, and a slot
    is reserved under an id that the caller makes, so the second call finds it.

    Args:
        client: The server.
        namespace: The prefix of the keys.
        settings: The durations and shares that the scripts use.
    """

    def __init__(self, client: Client, namespace: str, settings: FeedSettings) -> None:
        self.keys = FleetKeys.of(namespace, client.target.db)
        #: Emits each message that this engine has published, once the reply has arrived.
        self.written: Relay[bytes] = Relay("fleet")
        self._client = client
        self._fence = Fence(f"fleet {namespace!r}")
        self._terms = (
            repr(settings.tombstone_ttl),
            repr(settings.max_lapse_share),
            repr(settings.mass_lapse_delay),
        )

    async def register(self, nodes: Sequence[Registration]) -> list[int]:
        """Add or update nodes, and return their versions."""
        args: list[Value] = []
        for node in nodes:
            args += (node.id.encode(), node.capacity, _milli(node.ttl), node.spec, node.state)
        return self._publish(await self._run("register", "register", args))

    async def heartbeat(self, states: Iterable[tuple[str, bytes | None]]) -> list[int]:
        """Restart the ttls of nodes; return their versions, 0 where there is no such node."""
        args: list[Value] = []
        for node, state in states:
            args += (node.encode(), b"" if state is None else b"1", state or b"")
        return self._publish(await self._run("heartbeat", "heartbeat", args))

    async def drain(self, ids: Iterable[str]) -> list[int]:
        """Stop placements on nodes; return their versions, 0 where there is no such node."""
        return self._publish(await self._run("drain", "drain", list(map(str.encode, ids))))

    async def remove(self, ids: Iterable[str]) -> list[int]:
        """Remove nodes; return 1 for each that existed or was removed recently, else 0."""
        return self._publish(await self._run("remove", "remove", list(map(str.encode, ids))))

    async def reserve(
        self, wanted: Sequence[tuple[str, Sequence[str]]], lease: float
    ) -> tuple[list[int], bytes | None]:
        """
        Reserve slots.

        Args:
            wanted: Ids of slots, each with the nodes to try, in that order.
            lease: Seconds until a slot is free again, unless it is renewed.

        Returns:
            For each slot the index of the node that accepted it, or -1; and a message with the
            present state of the nodes that refused.
        """
        width = max(len(nodes) for _, nodes in wanted)
        args: list[Value] = [_micro(lease), width]
        for slot, nodes in wanted:
            padding = (b"",) * (width - len(nodes))
            args += (slot.encode(), *map(str.encode, nodes), *padding)
        *reply, refusing = await self._run("reserve", "reserve", args)
        return [choice - 1 for choice in self._publish(reply)], refusing

    async def release(self, slots: Iterable[str]) -> None:
        """Give slots back; slots that are not held are ignored."""
        (published,) = await self._run("release", "release", list(map(str.encode, slots)))
        self._publish(((), published))

    async def renew(self, slots: Iterable[str], lease: float) -> list[int]:
        """Restart the leases of slots; return 1 for each slot that is still held, else 0."""
        args: list[Value] = [_micro(lease), *map(str.encode, slots)]
        return self._publish(await self._run("renew", "renew", args))

    async def pulse(self) -> Position:
        """Remove lapsed nodes and slots, and return the position of the log."""
        return Position(*await self._run("pulse", "pulse", []))

    async def changes(self, after: int, limit: int) -> Page:
        """Return up to *limit* nodes changed after number *after*, removals too, oldest first."""
        return _page(await self._run("read changes", "changes", [after, limit]))

    async def lookup(self, ids: Iterable[str]) -> Page:
        """Return the present state of the first *ids*, as many as fit one reply."""
        return _page(await self._run("look up nodes", "lookup", list(map(str.encode, ids))))

    async def _run(self, operation: str, script: str, args: Sequence[Value]) -> Any:
        head = (
            self.keys.changes,
            os.urandom(EPOCH_SIZE),
            b"1" if self.written.active else b"",
            *self._terms,
        )
        try:
            return await self._client.run(
                operation, _SCRIPTS[script], self.keys.keys, (*head, *args), self._fence
            )
        except ResponseError as error:
            state = state_of(error)
            if state is None:
                raise
            raise StoreUnavailableError(operation, state=state) from error

    def _publish(self, reply: Sequence[Any]) -> list[int]:
        """Emit the published messages to this hub's feeds ahead of Pub/Sub; return the answer."""
        answer, published = reply
        for message in published:
            self.written.emit(message)
        return cast("list[int]", answer)


def _page(reply: Any) -> Page:
    epoch, seq, floor, message, more = reply
    return Page(Position(epoch, seq, floor), message, bool(more))


def _milli(duration: float) -> int:
    return min(2**32 - 1, max(1, round(duration * 1000)))


def _micro(duration: float) -> int:
    return min(2**52, max(1, round(duration * 1_000_000)))
