"""Feeds behind a proxy, and a checker of the changes that they emit."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Self

import attrs

from rxdispatch.config import FeedSettings, Settings, StoreSettings
from rxdispatch.hub import Hub, connect
from rxdispatch.node import Node, NodeChange
from rxdispatch.nodes.engine import FleetEngine, Page, Position
from rxdispatch.nodes.feed.feed import Feed
from rxdispatch.nodes.keys import FleetKeys
from rxdispatch.store.url import Target
from tests.nodes.places import until
from tests.proxy import Proxy
from tests.servers import Kind, any_server

__all__ = [
    "CHANGES",
    "Account",
    "Scene",
    "Stepped",
    "commands",
    "converged",
    "descriptors",
    "monitored",
    "nodes_of",
    "scene",
    "scene_at",
    "stale",
    "stepped_feed",
]

#: The channel of the namespace that these tests use.
CHANGES = FleetKeys.of("rxd").changes

Hook = Callable[[], Awaitable[object]]


@attrs.frozen
class Scene:
    """
    A server, and a proxy before it.

    Attributes:
        target: The server.
        proxy: The proxy.
        hub: A hub behind the proxy.
        straight: A hub with a direct connection; another process to the server.
    """

    target: Target
    proxy: Proxy
    hub: Hub
    straight: Hub

    async def call(self, *args: Any) -> Any:
        """Send any command over the direct connection."""
        return await self.straight.client.call("test", *args)

    async def relisted(self) -> dict[str, Node]:
        """Return the nodes that a new feed finds."""
        async with self.straight.feed() as feed:
            return nodes_of(feed)


@asynccontextmanager
async def scene(kind: Kind = "valkey", *, tcp: bool = False, **feed: Any) -> AsyncGenerator[Scene]:
    """Run a server with a proxy before it; *feed* are feed settings."""
    async with any_server(kind) as target, scene_at(target, tcp=tcp, **feed) as found:
        yield found


@asynccontextmanager
async def scene_at(target: Target, *, tcp: bool = False, **feed: Any) -> AsyncGenerator[Scene]:
    """Put a proxy before a server, and open a hub on either side of it."""
    settings = Settings(store=StoreSettings(), feed=FeedSettings(**feed))
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(Proxy(target, tcp=tcp))
        straight = await stack.enter_async_context(connect(target.safe, settings=settings))
        hub = await stack.enter_async_context(connect(proxy.target.safe, settings=settings))
        yield Scene(target, proxy, hub, straight)


def nodes_of(feed: Feed) -> dict[str, Node]:
    """Return the nodes of a feed by id."""
    return {node.id: node for node in feed.nodes()}


def stale(feed: Feed, truth: dict[str, Node]) -> list[str]:
    """Return the ids of the nodes that *feed* lacks or has in an older state than *truth*."""
    here = nodes_of(feed)
    late = [name for name in truth if name not in here or here[name].seq < truth[name].seq]
    return late + [name for name in here if name not in truth]


async def converged(at: Scene, *feeds: Feed, seconds: float = 15.0) -> dict[str, Node]:
    """Wait until all *feeds* equal a relist while nothing is written; return the relist."""
    truth = await at.relisted()
    try:
        await until(lambda: all(truth == nodes_of(feed) for feed in feeds), seconds)
    except TimeoutError:
        for feed in feeds:
            here = nodes_of(feed)
            names = [name for name in truth | here if truth.get(name) != here.get(name)]
            examples = [(truth.get(name), here.get(name)) for name in names[:3]]
            assert not names, f"{len(names)} nodes differ, such as {examples}"
    return truth


class Account:
    """
    Collects the changes of a feed, and checks that each one may come now.

    A change fits the known state of its node; numbers grow for each node within an epoch;
    ``previous`` is the last emitted node, except for heartbeats without news.

    Args:
        feed: Whose changes; None to add them by hand.
    """

    def __init__(self, feed: Feed | None = None) -> None:
        self.changes: list[NodeChange] = []
        self.errors: list[str] = []
        self.failed: Exception | None = None
        self.ended = False
        self._known: dict[str, Node] = {}
        self._epoch = ""
        self._last: dict[str, tuple[int, str]] = {}
        if feed is not None:
            self._known = nodes_of(feed)
            self._last = {name: (node.seq, "added") for name, node in self._known.items()}
            # Only changes of this epoch count, as a new epoch emits known nodes again.
            self._epoch = feed._replica.epoch.hex()
            self.subscription = feed.changes.subscribe(self.add, self._fail, self._end)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.subscription.dispose()
        if kind is None:
            self.check()

    def check(self) -> None:
        """Fail if the feed emitted a change that breaks a rule."""
        assert self.failed is None, self.failed
        assert [] == self.errors[:10]

    def add(self, change: NodeChange) -> None:
        """Check one change."""
        self.changes.append(change)
        if change.node is None:
            return
        name, node = change.node.id, change.node
        if change.epoch != self._epoch:
            self._epoch, self._last = change.epoch, {}
        seq, kind = self._last.get(name, (-1, ""))
        # The feed itself decides that a node is suspect or ready again, without a new number.
        again = "suspect" in {kind, change.kind} and kind != change.kind
        if change.seq < seq or (change.seq == seq and not again):
            self.errors.append(f"{change} after {kind} {seq}")
        self._last[name] = (change.seq, change.kind)
        known = self._known.get(name)
        if (known is None) != (change.kind == "added") or (known is None) != (
            change.previous is None
        ):
            self.errors.append(f"{change} where {known} is known")
        if change.kind == "removed":
            self._known.pop(name, None)
        else:
            self._known[name] = node

    def kinds(self, node: str | None = None) -> list[str]:
        """Return the kinds of changes of that node, or of any, in order."""
        return [
            change.kind
            for change in self.changes
            if change.node is not None and node in {None, change.node.id}
        ]

    def count(self, kind: str) -> int:
        """Return the number of changes of that kind."""
        return sum(change.kind == kind for change in self.changes)

    def _fail(self, error: Exception) -> None:
        self.failed = error

    def _end(self) -> None:
        self.ended = True


class Stepped(FleetEngine):
    """
    An engine with hooks before and after its steps.

    Attributes:
        before: Hooks, each called once, before the next step of that name.
        after: Hooks, each called once, between the reply and its use.
        count: How often each step was started.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.before: list[tuple[str, Hook]] = []
        self.after: list[tuple[str, Hook]] = []
        self.count: dict[str, int] = {}

    async def pulse(self) -> Position:
        """Run the hooks around the original."""
        await self._step("pulse", self.before)
        reply = await super().pulse()
        await self._step("", self.after, "pulse")
        return reply

    async def changes(self, after: int, limit: int) -> Page:
        """Run the hooks around the original."""
        await self._step("changes", self.before)
        reply = await super().changes(after, limit)
        await self._step("", self.after, "changes")
        return reply

    async def lookup(self, ids: Iterable[str]) -> Page:
        """Run the hooks around the original."""
        await self._step("lookup", self.before)
        reply = await super().lookup(ids)
        await self._step("", self.after, "lookup")
        return reply

    async def _step(self, begun: str, hooks: list[tuple[str, Hook]], name: str = "") -> None:
        if begun:
            self.count[begun] = self.count.get(begun, 0) + 1
        for hook in hooks:
            if hook[0] == (begun or name):
                hooks.remove(hook)
                await hook[1]()
                return


def stepped_feed(hub: Hub, **feed: Any) -> tuple[Feed, Stepped]:
    """Return a feed of *hub* with an engine of its own."""
    settings = FeedSettings(**feed)
    engine = Stepped(hub.client, "rxd", settings)
    channels: Any = hub._channels
    return Feed(engine, channels, settings, limit=20.0, name="test"), engine


@asynccontextmanager
async def monitored(target: Target) -> AsyncGenerator[list[bytes]]:
    """Collect the commands that a server receives, including those of scripts, by MONITOR."""
    if target.scheme == "unix":
        reader, writer = await asyncio.open_unix_connection(target.path)
    else:
        reader, writer = await asyncio.open_connection(target.host, target.port)
    lines: list[bytes] = []

    async def collect() -> None:
        while line := await reader.readline():
            lines.append(line)

    writer.write(b"MONITOR\r\n")
    assert b"+OK\r\n" == await reader.readline()
    task = asyncio.create_task(collect())
    try:
        yield lines
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        writer.transport.abort()


def commands(lines: Sequence[bytes], *words: bytes) -> int:
    """Return how many of MONITOR's *lines* contain all *words*."""
    return sum(all(word in line for word in words) for line in lines)


def descriptors() -> int:
    """Return how many files and sockets this process has open."""
    return len(list(Path(f"/proc/{os.getpid()}/fd").iterdir()))
