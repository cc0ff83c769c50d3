"""``Feed``: a process's copy of a fleet, kept current by messages and pulses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Self, Unpack

from reactivex import Observable

from rxdispatch.checks import integer
from rxdispatch.clock import clock_of
from rxdispatch.config import FeedSettings
from rxdispatch.errors import ConfigError
from rxdispatch.every import every
from rxdispatch.home import Home
from rxdispatch.node import Mode, Node, NodeChange, Slot, node_id
from rxdispatch.nodes.engine import FleetEngine
from rxdispatch.nodes.feed.fetching import Fetching
from rxdispatch.nodes.feed.modes import Modes
from rxdispatch.nodes.feed.replication import Replication
from rxdispatch.nodes.feed.stats import Counters, FeedStats
from rxdispatch.nodes.feed.unopened import RULE as UNOPENED
from rxdispatch.nodes.feed.unopened import Unopened
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.criteria_cache import CriteriaArguments, CriteriaCache
from rxdispatch.nodes.placement.explanation import Explanation
from rxdispatch.nodes.placement.placements import Placements
from rxdispatch.nodes.placement.reserver import Reserver
from rxdispatch.nodes.placement.selector import Selector
from rxdispatch.nodes.placement.slots import Slots
from rxdispatch.nodes.replica.doubts import Doubts
from rxdispatch.nodes.replica.followers import Followers
from rxdispatch.nodes.replica.lapse_timer import LapseTimer
from rxdispatch.nodes.replica.replica import Replica
from rxdispatch.nodes.replica.unsaved import Unsaved
from rxdispatch.relay import Relay
from rxdispatch.seconds import seconds
from rxdispatch.store.pubsub.channels import Channels

__all__ = ["Feed"]


class Feed:
    """
    The nodes of a fleet, kept in this process and provably fresh; made by ``hub.feed()``.

    Use it with ``async with``. Entering it reads the whole fleet. From then on the server pushes
    changes, and about once a second the feed proves that it has missed none. Reads are look-ups
    in a dictionary.

    Args:
        engine: The registry.
        channels: Its Pub/Sub.
        settings: How the feed keeps up.
        limit: Seconds that entering may take, reading the fleet not included.
        name: Identifies the registry in the snapshot.

    Raises:
        ConfigError: If it is made outside a running loop.
    """

    def __init__(
        self,
        engine: FleetEngine,
        channels: Channels,
        settings: FeedSettings,
        *,
        limit: float,
        name: str,
    ) -> None:
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            raise ConfigError("feed must be made in a running loop") from None
        self._home = Home("feed")
        self._home.check()
        self._counters = counters = Counters()
        self._modes = modes = Modes(counters)
        self._changes: Relay[NodeChange] = Relay("changes")
        self._lapses = LapseTimer()

        # The replica, and the parts that are updated with it.
        nodes: dict[str, Node] = {}
        doubts, unsaved = Doubts(), Unsaved()
        self._placements = placements = Placements(clock_of(loop))
        self._selector = selector = Selector(nodes, placements, random.Random())
        followers = Followers(
            selector=selector,
            placements=placements,
            unsaved=None if settings.snapshot_path is None else unsaved,
            subscribers=self._changes,
            doubts=doubts,
            lapses=self._lapses,
        )
        self._replica = replica = Replica(nodes, clock_of(loop), followers)

        # The parts that update the replica.
        self._replication = replication = Replication(
            engine=engine,
            channels=channels,
            replica=replica,
            doubts=doubts,
            unsaved=unsaved,
            modes=modes,
            counters=counters,
            settings=settings,
            limit=limit,
            name=name,
        )
        self._sync = sync = replication.sync
        self._lapses.on_lapse(sync.lapse)

        # The parts that read the replica.
        timeout = settings.check_timeout
        self._nodes: dict[str, Node] = Unopened()
        self._fetching = Fetching(replica, replication.lookups, sync, modes, counters, timeout)
        self._criteria = CriteriaCache()
        self._slots = Slots(engine, replication.sequencer.receive_refusals)
        self._reserver = Reserver(nodes, selector, placements, self._slots, sync.lapse_due)
        self._guarded_changes = self._home.guard(self._changes.observable)
        self._guarded_modes = self._home.guard(modes.observable)
        self._state = "new"

    def __repr__(self) -> str:
        return f"<Feed {self._state} {len(self._nodes)} nodes {self.mode.value}>"

    # -- reading -----------------------------------------------------------------------------

    @property
    def changes(self) -> Observable[NodeChange]:
        """
        Hot: the changes of nodes from now on, in order for each node and none twice.

        A heartbeat without news changes the node's version and emits nothing. ``synced`` follows
        whenever changes were missed and the feed has caught up. A subscriber that raises is
        dropped with that error; put ``conflate`` before a slow subscriber.
        """
        return self._guarded_changes

    @property
    def mode(self) -> Mode:
        """Where the feed gets its data from."""
        return self._modes.mode

    @property
    def modes(self) -> Observable[Mode]:
        """The current mode, then each new one."""
        return self._guarded_modes

    @property
    def stats(self) -> FeedStats:
        """The counters since the feed was entered."""
        now = asyncio.get_running_loop().time()
        return self._counters.read(len(self._nodes), now - self._sync.proven_at)

    def stats_every(self, period: float | timedelta) -> Observable[FeedStats]:
        """
        Emit :attr:`stats` at once and every *period* seconds; costs nothing without a subscriber.

        Raises:
            ConfigError: If *period* is not a number of seconds above 0.
        """
        return every(period, lambda: self.stats)

    @property
    def current(self) -> bool:
        """Whether the feed has proof that it lacks no change older than 1.5 pulse intervals."""
        return self._sync.current

    def get(self, node: str) -> Node | None:
        """Return a node from memory; None if the feed knows no such node."""
        return self._nodes.get(node)

    def nodes(self, pool: str | None = None) -> list[Node]:
        """Return all nodes, or those of a pool, from memory."""
        if pool is None:
            return list(self._nodes.values())
        return [node for node in self._nodes.values() if node.pool == pool]

    async def fetch(self, node: str) -> Node | None:
        """
        Return a node, as fresh as a short wait allows.

        While the feed is current, this is the same as :meth:`get`. Otherwise, in mode ``NORMAL``,
        the feed asks the registry, waits up to ``FeedSettings.check_timeout`` (50 ms), and returns
        the node from memory; a late answer is applied when it arrives. If the registry has no such
        node, the feed does not ask for it again for 0.5 to 1 s.

        Raises:
            ConfigError: If *node* is not a valid id.
        """
        self._require_entered()
        return (await self._fetching.fetch([node_id(node)]))[node]

    async def fetch_many(self, nodes: Iterable[str]) -> dict[str, Node | None]:
        """Return several nodes by id, as :meth:`fetch` does, with one call to the registry."""
        if isinstance(nodes, str):
            raise ConfigError("nodes must be an iterable of ids", nodes)
        self._require_entered()
        return await self._fetching.fetch([node_id(node) for node in nodes])

    def keep_heartbeats(self) -> None:
        """Remember each node's last heartbeat for :meth:`silence`; takes 150 bytes a node."""
        self._replica.keep_heartbeats()

    def silence(self, node: str) -> float | None:
        """
        Return the seconds since the last heartbeat of a node.

        It is None if that is unknown; call :meth:`keep_heartbeats` before entering the feed.
        """
        return self._replica.silence(node)

    # -- choosing ----------------------------------------------------------------------------

    def select(self, **criteria: Unpack[CriteriaArguments]) -> Node | None:
        """
        Choose a node that has room, from memory; None if there is none.

        Nothing is reserved, but the choice counts as load for up to a second, so that the next
        calls tend to choose other nodes. While the feed is current, it never chooses a node whose
        ttl ran out more than 50 ms ago.

        Args:
            criteria: See :class:`Criteria`.

        Raises:
            ConfigError: If a criterion is invalid.
        """
        self._require_entered()
        self._sync.lapse_due()
        chosen = self._selector.pick(self._criteria.get(criteria))
        if not chosen:
            return None
        self._placements.placed(chosen[0].id)
        return chosen[0]

    def criteria(self, **criteria: Unpack[CriteriaArguments]) -> Criteria:
        """
        Return the criteria with these arguments.

        Raises:
            ConfigError: If a criterion is invalid or unknown.
        """
        return self._criteria.get(criteria)

    def explain(self, **criteria: Unpack[CriteriaArguments]) -> Explanation:
        """Return how many nodes each filter rejects."""
        self._require_entered()
        self._sync.lapse_due()
        return self._selector.explain(self._criteria.get(criteria))

    def reserve(
        self, *, lease: float | timedelta = 30.0, **criteria: Unpack[CriteriaArguments]
    ) -> AbstractAsyncContextManager[Slot]:
        """
        Hold a slot on a node with room while the block runs.

        The registry decides in one atomic step. Each of up to five round trips tries up to three
        nodes. The feed renews the slot and releases it once, even if the block fails.

        Args:
            lease: Seconds after which the slot is free again if this process dies.
            criteria: See :class:`Criteria`.

        Raises:
            ConfigError: At the call, if an argument is invalid.
            NoCapacityError: On entry, if no node has room.
            StoreUnavailableError: On entry, if the registry cannot be reached.
        """
        return self._reserved(self._criteria.get(criteria), seconds("lease", lease, zero=False))

    async def reserve_many(
        self, count: int, *, lease: float | timedelta = 30.0, **criteria: Unpack[CriteriaArguments]
    ) -> list[Slot]:
        """
        Reserve up to *count* slots, mostly in one round trip; give them back with :meth:`release`.

        Args:
            count: How many slots, at least 1; one call reserves at most 256.
            lease: Seconds after which the slots are free again if this process dies.
            criteria: See :class:`Criteria`.

        Returns:
            As many slots as there was room for, possibly none.
        """
        integer("count", count)
        wanted = self._criteria.get(criteria)
        span = seconds("lease", lease, zero=False)
        self._require_open()
        return await self._reserver.many(wanted, count, span)

    async def release(self, slot: Slot) -> None:
        """Give a slot back; safe to repeat, even after its node was removed."""
        self._home.check()
        await self._slots.release(slot)

    def release_later(self, slots: Iterable[Slot]) -> None:
        """Give slots back in the background."""
        self._slots.release_later([slot.id for slot in slots])

    # -- lifetime ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Subscribe, read the fleet, and return when nothing is missing."""
        if self._state != "new":
            raise ConfigError("feed must be entered once", self._state)
        self._state = "open"
        self._nodes = self._replica.nodes
        try:
            await self._replication.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the feed."""
        await self.close()

    async def close(self) -> None:
        """Release all slots, unsubscribe and complete ``changes``; safe to repeat."""
        if self._state == "closed":
            return
        self._home.check()
        self._state = "closed"
        self._lapses.close()
        try:
            await self._replication.stop()
            await self._slots.close()
        finally:
            await self._replication.close()
            self._changes.complete()
            self._modes.complete()

    def _require_entered(self) -> None:
        self._home.check()
        if self._state == "new":
            raise ConfigError(UNOPENED, self._state)

    def _require_open(self) -> None:
        self._home.check()
        if self._state != "open":
            raise ConfigError(UNOPENED, self._state)

    # -- reserving ---------------------------------------------------------------------------

    @asynccontextmanager
    async def _reserved(self, criteria: Criteria, lease: float) -> AsyncGenerator[Slot]:
        self._require_open()
        slot = await self._reserver.one(criteria, lease)
        try:
            yield slot
        finally:
            await self._slots.release(slot)
