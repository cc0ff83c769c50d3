"""``FleetEngine``: the atomic steps of a fleet as scripts on a server."""

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
from rxdispatch.store.refusal import state_of
from rxdispatch.store.scripts import load_script

__all__ = ["EPOCH_SIZE", "FleetEngine", "Page", "Position", "Registration"]

EPOCH_SIZE: Final = 16
"""Bytes of an epoch."""

_SCRIPTS: Final = {
    name: load_script("rxdispatch.nodes", "prelude", name)
    for name in (
        *("register", "heartbeat", "drain", "remove", "reserve", "release", "renew"),
        *("pulse", "changes", "lookup"),
    )
}


class Registration(NamedTuple):
    """What the registry is told of a node; *ttl* in seconds."""

    id: str
    capacity: int
    ttl: float
    spec: bytes
    state: bytes


class Position(NamedTuple):
    """
    Where the registry stands.

    Attributes:
        epoch: The life of its data; empty when there never was any.
        seq: The number of its last change.
        floor: Who has seen less than this has missed removals.
    """

    epoch: bytes
    seq: int
    floor: int


class Page(NamedTuple):
    """Rows as they were at *position*, as a message; *more* follow."""

    position: Position
    message: bytes
    more: bool


class FleetEngine:
    """
    One fleet on one server; what the registry and the feeds of a hub have in common.

    Every step may be run twice: a heartbeat then counts twice, which only makes the version
    grow; a slot is reserved under an id of our own, so that the second time finds it.

    Args:
        client: The server.
        namespace: What the names of keys begin with.
        settings: What the steps are told of time and share.
    """

    def __init__(self, client: Client, namespace: str, settings: FeedSettings) -> None:
        self.keys = FleetKeys.of(namespace, client.target.db)
        #: What this process has published, as messages, as soon as it is known to be written.
        self.written: Relay[bytes] = Relay("fleet")
        self._client = client
        self._terms = (
            repr(settings.tombstone_ttl),
            repr(settings.max_lapse_share),
            repr(settings.mass_lapse_delay),
        )

    async def register(self, nodes: Sequence[Registration]) -> list[int]:
        """Add or update nodes; returns their versions."""
        args: list[Value] = []
        for node in nodes:
            args += (node.id.encode(), node.capacity, _milli(node.ttl), node.spec, node.state)
        return self._told(await self._run("register", "register", args))

    async def heartbeat(self, states: Iterable[tuple[str, bytes | None]]) -> list[int]:
        """Put the ends of ttls off; returns versions, 0 where there is no such node."""
        args: list[Value] = []
        for node, state in states:
            args += (node.encode(), b"" if state is None else b"1", state or b"")
        return self._told(await self._run("heartbeat", "heartbeat", args))

    async def drain(self, ids: Iterable[str]) -> list[int]:
        """Let nodes get nothing more; returns versions, 0 where there is no such node."""
        return self._told(await self._run("drain", "drain", list(map(str.encode, ids))))

    async def remove(self, ids: Iterable[str]) -> list[int]:
        """Remove nodes; returns 0 where there was none, now or lately."""
        return self._told(await self._run("remove", "remove", list(map(str.encode, ids))))

    async def reserve(
        self, wanted: Sequence[tuple[str, Sequence[str]]], lease: float
    ) -> tuple[list[int], bytes | None]:
        """
        Reserve slots.

        Args:
            wanted: Ids of slots, each with the nodes to try in this order.
            lease: Seconds until a slot is free again, unless it is renewed.

        Returns:
            For each slot which of its nodes took it, None being -1; and how those that refused
            are, as a message.
        """
        width = max(len(nodes) for _, nodes in wanted)
        args: list[Value] = [_micro(lease), width]
        for slot, nodes in wanted:
            padding = (b"",) * (width - len(nodes))
            args += (slot.encode(), *map(str.encode, nodes), *padding)
        *reply, refusing = await self._run("reserve", "reserve", args)
        return [choice - 1 for choice in self._told(reply)], refusing

    async def release(self, slots: Iterable[str]) -> None:
        """Give slots back; those that are not held are passed over."""
        (published,) = await self._run("release", "release", list(map(str.encode, slots)))
        self._told(((), published))

    async def renew(self, slots: Iterable[str], lease: float) -> list[int]:
        """Put the ends of leases off; 0 where a slot is not held any more."""
        args: list[Value] = [_micro(lease), *map(str.encode, slots)]
        return self._told(await self._run("renew", "renew", args))

    async def pulse(self) -> Position:
        """Remove what has lapsed, and say where things stand."""
        return Position(*await self._run("pulse", "pulse", []))

    async def changes(self, after: int, limit: int) -> Page:
        """The nodes that changed after that number, and those that went, in this order."""
        return _page(await self._run("read changes", "changes", [after, limit]))

    async def lookup(self, ids: Iterable[str]) -> Page:
        """How some nodes are: as many of the first as fit one reply."""
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
                operation, _SCRIPTS[script], self.keys.keys, (*head, *args)
            )
        except ResponseError as error:
            state = state_of(error)
            if state is None:
                raise
            raise StoreUnavailableError(operation, state=state) from error

    def _told(self, reply: Sequence[Any]) -> list[int]:
        """Tell the feeds of this process what was written; they would hear of it a moment later."""
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
