"""The registry of a fleet, and what it stores and publishes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs

from rxdispatch.config import FeedSettings, Settings
from rxdispatch.hub import Hub, connect
from rxdispatch.node import Node
from rxdispatch.nodes.engine import FleetEngine, Page, Position
from rxdispatch.nodes.keys import FleetKeys
from rxdispatch.nodes.records import Message, MessageReader
from rxdispatch.nodes.registry import Registry
from rxdispatch.store.pubsub.channels import Channels
from rxdispatch.store.url import Target
from tests.servers import Kind, any_server

__all__ = ["KINDS", "Ground", "ground", "ground_at", "until"]

KINDS: tuple[Kind, ...] = ("valkey", "redis")
NAMESPACE = "rxd"


@attrs.frozen
class Ground:
    """
    A server with two hubs that use its fleet.

    Attributes:
        target: The server.
        hub: A hub; one process to the server.
        other: Another hub.
        engine: The scripts.
    """

    target: Target
    hub: Hub
    other: Hub
    engine: FleetEngine

    @property
    def nodes(self) -> Registry:
        """Return the registry."""
        return self.hub.nodes

    async def call(self, *args: Any) -> Any:
        """Send any command."""
        return await self.hub.client.call("test", *args)

    def key(self, name: str) -> bytes:
        """Return the name of one of the fleet's keys."""
        return b"{rxd}:fleet:" + name.encode()

    async def later(self, seconds: float) -> None:
        """
        Let time pass for the fleet.

        The fleet stores how far its clock is ahead of TIME; increasing this offset saves the wait.
        """
        await self.call("HINCRBY", self.key("meta"), "skew", round(seconds * 1_000_000))

    async def fleet(self) -> dict[str, Node]:
        """Return the stored nodes."""
        reader, found = MessageReader(), await self.call("HGETALL", self.key("nodes"))
        numbers = {
            node: int(await self.call("ZSCORE", self.key("log"), node)) for node in found[::2]
        }
        return {
            node.decode(): reader.record(node.decode(), numbers[node], record)
            for node, record in zip(found[::2], found[1::2], strict=True)
        }

    async def ids(self) -> list[str]:
        """Return the ids of the stored nodes."""
        return sorted(node.decode() for node in await self.call("HKEYS", self.key("nodes")))

    async def jobs(self, node: str) -> int:
        """Return how many jobs a node has."""
        return (await self.fleet())[node].current_jobs

    async def dump(self) -> dict[bytes, Any]:
        """Return all stored data, to compare it later."""
        keys = await self.call("KEYS", "*")
        return {key: await self.call("DUMP", key) for key in sorted(keys)}

    async def pulse(self) -> Position:
        """Sweep, and return the position of the log."""
        return await self.engine.pulse()

    async def changes(self, after: int = 0, limit: int = 1000) -> tuple[Page, Message]:
        """Return the changes after the number *after*."""
        page = await self.engine.changes(after, limit)
        return page, MessageReader().message(page.message)

    @asynccontextmanager
    async def published(self) -> AsyncGenerator[list[Message]]:
        """Collect published messages; the list is complete when the block has ended."""
        channels, messages, reader = Channels(self.hub.client), list[Message](), MessageReader()
        name = FleetKeys.of(NAMESPACE).changes
        subscription = channels.channel(name).subscribe(
            lambda data: None if data is None else messages.append(reader.message(data))
        )
        try:
            await channels.confirmed(name)
            yield messages
            await channels.barrier(5.0)
        finally:
            subscription.dispose()
            await channels.close()


@asynccontextmanager
async def ground(kind: Kind = "valkey", **feed: Any) -> AsyncGenerator[Ground]:
    """Run a server; *feed* are feed settings."""
    async with any_server(kind) as target, ground_at(target, **feed) as found:
        yield found


@asynccontextmanager
async def ground_at(target: Target, **feed: Any) -> AsyncGenerator[Ground]:
    """Open two hubs on a server."""
    settings = Settings(feed=FeedSettings(**feed))
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(connect(target.safe, settings=settings))
        other = await stack.enter_async_context(connect(target.safe, settings=settings))
        yield Ground(target, hub, other, FleetEngine(hub.client, NAMESPACE, settings.feed))


async def until(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Wait until *condition* holds."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
