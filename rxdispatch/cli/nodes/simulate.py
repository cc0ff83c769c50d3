"""``rxdispatch nodes simulate``: registers a simulated fleet and keeps it alive."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Final

import attrs
from rich.console import Console

from rxdispatch.cli.live_line import LiveLine
from rxdispatch.cli.nodes.simulated_fleet import SimulatedFleet
from rxdispatch.cli.text import number
from rxdispatch.cli.until import Until
from rxdispatch.errors import ConfigError, NodeNotFoundError, StoreUnavailableError
from rxdispatch.hub import connect
from rxdispatch.nodes.registry import TTL_LIMIT, Registry
from rxdispatch.seconds import seconds
from rxdispatch.store.embedded.server import EmbeddedServer
from rxdispatch.store.url import parse_url

__all__ = ["Simulation", "simulate"]

TIDY: Final = 5.0
"""Seconds that the removal of the nodes may take at the end."""

_TICK: Final = 0.5
_AT_ONCE: Final = 64
_PAUSE: Final = 0.5


@attrs.frozen(kw_only=True)
class Simulation:
    """
    The options of the command.

    Raises:
        ConfigError: From :meth:`fleet`, if an option breaks its rule.
    """

    nodes: int
    churn: float
    ttl: float
    interval: float | None
    pools: str
    capacity: int
    seed: int | None
    duration: float | None
    namespace: str

    def fleet(self) -> SimulatedFleet:
        """Make the fleet that the options describe."""
        ttl = seconds("ttl", self.ttl, zero=False)
        if ttl > TTL_LIMIT:
            raise ConfigError(f"ttl must be at most {TTL_LIMIT:g} s", ttl)
        if self.duration is not None:
            seconds("duration", self.duration)
        return SimulatedFleet(
            self.nodes,
            pools=[pool.strip() for pool in self.pools.split(",")],
            capacity=self.capacity,
            churn=self.churn,
            interval=ttl / 3 if self.interval is None else self.interval,
            ttl=ttl,
            seed=random.randrange(2**32) if self.seed is None else self.seed,
        )


def simulate(url: str | None, simulation: Simulation) -> None:
    """
    Keep a simulated fleet alive until a signal comes, or for its duration.

    Raises:
        ConfigError: If an argument breaks its rule.
        StoreUnavailableError: If the server does not answer at the start.
        SystemExit: With 128 plus the number of the signal, at the second signal.
    """
    fleet = simulation.fleet()
    url = url or os.environ.get("RXDISPATCH_URL") or None
    line = LiveLine(Console(stderr=True))
    try:
        asyncio.run(_run(url, simulation, fleet, line))
    finally:
        line.end()


async def _run(
    url: str | None, simulation: Simulation, fleet: SimulatedFleet, line: LiveLine
) -> None:
    def on_signal() -> None:
        line.say("Removing the nodes; press Ctrl-C again to abort.")

    with Until(on_signal) as until:
        async with _server(url) as where, connect(where, namespace=simulation.namespace) as hub:
            agent = _Agent(hub.nodes, fleet, simulation.ttl, line)
            async with until.stopped(simulation.duration):
                fleet.advance(asyncio.get_running_loop().time())
                await agent.tell()
                line.say(
                    f"Keeping {number(simulation.nodes, 'node')} alive on {parse_url(where).safe};"
                    " Ctrl-C removes them."
                )
                if url is None:
                    # For scripts: the URL alone on stdout, once there are nodes to watch.
                    print(where, flush=True)
                    line.say(f"Watch them: rxdispatch nodes watch --url {shlex.quote(where)}")
                await agent.run()
            await agent.leave()


@asynccontextmanager
async def _server(url: str | None) -> AsyncGenerator[str]:
    """Yield *url*, or the URL of an embedded server."""
    if url is not None:
        yield url
    else:
        async with await EmbeddedServer.start() as server:
            yield server.target.safe


class _Agent:
    """Sends the updates of all nodes of a fleet; survives an outage of the server."""

    def __init__(
        self, registry: Registry, fleet: SimulatedFleet, ttl: float, line: LiveLine
    ) -> None:
        self._registry = registry
        self._fleet = fleet
        self._ttl = ttl
        self._line = line
        self._clock = asyncio.get_running_loop().time
        self._heartbeats = 0
        self._since: float | None = None

    async def run(self) -> None:
        """Send updates until cancelled."""
        shown, beats = self._clock(), self._heartbeats
        while True:
            try:
                await self.tell()
            except StoreUnavailableError as error:
                self._away(error)
                await asyncio.sleep(_PAUSE)
                continue
            self._back()
            now = self._clock()
            if now >= shown + 1:
                self._show((self._heartbeats - beats) / (now - shown))
                shown, beats = now, self._heartbeats
            await asyncio.sleep(_TICK)
            # The fleet advances only here, so it does not change during an outage of the server.
            self._fleet.advance(self._clock())

    async def tell(self) -> None:
        """
        Send the pending updates to the registry.

        Raises:
            StoreUnavailableError: If the server does not answer. What was not sent stays pending,
                and some updates may be sent twice.
        """
        pending = self._fleet.pending
        if pending.register:
            await self._registry.register(pending.register.values(), self._ttl)
            pending.register.clear()
        self._fleet.lost(await _each(self._registry.drain, pending.drain))
        await _each(self._registry.remove, pending.remove)
        if pending.heartbeats:
            versions = await self._registry.heartbeats(pending.heartbeats)
            self._heartbeats += len(versions)
            pending.heartbeats.clear()
            self._fleet.lost(node for node, version in versions.items() if version is None)

    async def leave(self) -> None:
        """Remove every node, if the server answers within the time limit."""
        ids = dict.fromkeys(self._fleet.ids)
        try:
            async with asyncio.timeout(TIDY):
                await _each(self._registry.remove, ids)
        except (TimeoutError, StoreUnavailableError):
            self._line.say(
                f"{number(len(ids), 'node')} could not be removed; they go when their ttl ends."
            )

    def _show(self, rate: float) -> None:
        fleet, so_far = self._fleet, self._fleet.events
        self._line.show(
            f"{fleet.ready:,} ready  {fleet.draining:,} draining  {rate:,.0f} heartbeats/s"
            f"  so far {so_far.came:,} came, {so_far.died:,} died, {so_far.drained:,} drained,"
            f" {so_far.went:,} left, {so_far.lost:,} came back"
        )

    def _away(self, error: StoreUnavailableError) -> None:
        if self._since is None:
            self._since = self._clock()
            self._line.say(f"{error}; retrying until it answers.")

    def _back(self) -> None:
        if self._since is not None:
            self._line.say(f"The server is back after {self._clock() - self._since:.1f} s.")
            self._since = None


async def _each(call: Callable[[str], Awaitable[object]], ids: dict[str, None]) -> list[str]:
    """
    Call *call* with each of *ids*, several at once, and remove the ids that are done.

    Returns:
        The ids that the registry did not know; they are done too.
    """
    unknown: list[str] = []

    async def one(node: str) -> None:
        try:
            await call(node)
        except NodeNotFoundError:
            unknown.append(node)
        ids.pop(node, None)

    for chunk in _chunks(tuple(ids)):
        results = await asyncio.gather(*map(one, chunk), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
    return unknown


def _chunks(ids: Sequence[str]) -> Iterable[Sequence[str]]:
    return (ids[at : at + _AT_ONCE] for at in range(0, len(ids), _AT_ONCE))
