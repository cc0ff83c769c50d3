"""``Feed``: the reading side of a fleet, for everybody in this process."""

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
    A fleet as it is now, kept in this process and provably fresh; made by ``hub.feed()``.

    Use it as an asynchronous context manager. On entry it has read the whole fleet; from then on
    changes are pushed, and about once a second it proves that none was missed. Reads are
    look-ups in a dictionary.

    Args:
        engine: The registry.
        channels: Its Pub/Sub.
        settings: How it keeps up.
        limit: Seconds that entering it may take beside reading the fleet.
        name: Which registry this is, for the snapshot.

    Raises:
        ConfigError: If it is made outside of a running loop.
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

        # The replica, and what is updated with it.
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

        # What updates it.
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

        # What reads it.
        timeout = settings.check_timeout
        self._nodes: dict[str, Node] = Unopened()
        self._fetching = Fetching(replica, replication.lookups, sync, modes, counters, timeout)
        self._criteria = CriteriaCache()
        self._slots = Slots(engine, replication.sequencer.refused)
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
        Hot: what happens to nodes from now on, those of one node in order and none twice.

        A heartbeat without news changes the node's version and is not told. ``synced`` follows
        whenever something was missed and has been made up for. A subscriber that raises is
        dropped with that error; one that is slow puts ``conflate`` before it.
        """
        return self._guarded_changes

    @property
    def mode(self) -> Mode:
        """Where the feed's knowledge comes from."""
        return self._modes.mode

    @property
    def modes(self) -> Observable[Mode]:
        """The mode, and each one that follows."""
        return self._guarded_modes

    @property
    def stats(self) -> FeedStats:
        """What was counted since the feed was entered."""
        now = asyncio.get_running_loop().time()
        return self._counters.read(len(self._nodes), now - self._sync.proven_at)

    @property
    def current(self) -> bool:
        """Whether it is proven that nothing older than a pulse or so is missing."""
        return self._sync.current

    def get(self, node: str) -> Node | None:
        """Return a node as it is known here, at once; None if there is none."""
        return self._nodes.get(node)

    def nodes(self, pool: str | None = None) -> list[Node]:
        """Return all nodes, or those of a pool, as they are known here."""
        if pool is None:
            return list(self._nodes.values())
        return [node for node in self._nodes.values() if node.pool == pool]

    async def fetch(self, node: str) -> Node | None:
        """
        Return a node, fresh where that is possible in time.

        While the feed is current that is :meth:`get`. If it is not, the registry is asked, and
        after ``FeedSettings.check_timeout`` (50 ms) what is known here is returned; the answer is
        applied when it comes. Nodes that do not exist are remembered for a moment.

        Raises:
            ConfigError: If *node* is no id.
        """
        self._require_entered()
        return (await self._fetching.fetch([node_id(node)]))[node]

    async def fetch_many(self, nodes: Iterable[str]) -> dict[str, Node | None]:
        """Return several nodes by id, as :meth:`fetch` does; the registry is asked once."""
        if isinstance(nodes, str):
            raise ConfigError("nodes must be an iterable of ids", nodes)
        self._require_entered()
        return await self._fetching.fetch([node_id(node) for node in nodes])

    def keep_heartbeats(self) -> None:
        """Remember when each node was last heard of, for :meth:`silence`; 150 bytes a node."""
        self._replica.keep_heartbeats()

    def silence(self, node: str) -> float | None:
        """
        Return the seconds since the last heartbeat of a node.

        None where that is not known: call :meth:`keep_heartbeats` before the feed is entered.
        """
        return self._replica.silence(node)

    # -- choosing ----------------------------------------------------------------------------

    def select(self, **criteria: Unpack[CriteriaArguments]) -> Node | None:
        """
        Choose a node that has room, from what is known here; None if there is none.

        The choice is remembered for up to a second, so that the next ones go elsewhere; nothing is
        reserved.

        Args:
            criteria: See :class:`Criteria`.

        Raises:
            ConfigError: If one breaks its rule.

        While the feed is current, a node whose ttl has passed for 50 ms is never chosen.
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
        Return what these arguments ask of a node.

        Raises:
            ConfigError: If one breaks its rule, or has no such name.
        """
        return self._criteria.get(criteria)

    def explain(self, **criteria: Unpack[CriteriaArguments]) -> Explanation:
        """Return how many nodes each filter refuses."""
        self._require_entered()
        self._sync.lapse_due()
        return self._selector.explain(self._criteria.get(criteria))

    def reserve(
        self, *, lease: float | timedelta = 30.0, **criteria: Unpack[CriteriaArguments]
    ) -> AbstractAsyncContextManager[Slot]:
        """
        Hold a slot on a node with room for as long as the block runs.

        The registry decides, in one atomic step; up to three nodes are tried in one round trip,
        and up to five times. The slot is renewed, and released once, also when the block fails.

        Args:
            lease: Seconds after which the slot is free should this process die.
            criteria: See :class:`Criteria`.

        Raises:
            ConfigError: At once, if an argument breaks its rule.
            NoCapacityError: On entry, if no node has room.
            StoreUnavailableError: On entry, if the registry cannot be reached.
        """
        return self._reserved(self._criteria.get(criteria), seconds("lease", lease, zero=False))

    async def reserve_many(
        self, count: int, *, lease: float | timedelta = 30.0, **criteria: Unpack[CriteriaArguments]
    ) -> list[Slot]:
        """
        Reserve up to *count* slots, mostly in one round trip, for :meth:`release` to give back.

        Args:
            count: At least 1; of more than 256 the rest is left out.
            lease: Seconds after which they are free should this process die.
            criteria: See :class:`Criteria`.

        Returns:
            As many as there was room for; none if there was none.
        """
        integer("count", count)
        wanted = self._criteria.get(criteria)
        span = seconds("lease", lease, zero=False)
        self._require_open()
        return await self._reserver.many(wanted, count, span)

    async def release(self, slot: Slot) -> None:
        """Give a slot back; again, or after its node has gone, does no harm."""
        self._home.check()
        await self._slots.release(slot)

    def release_later(self, slots: Iterable[Slot]) -> None:
        """Give slots back in the background."""
        self._slots.release_later([slot.id for slot in slots])

    # -- lifetime ----------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        """Subscribe, read the fleet, and return once nothing is missing."""
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
        """Release what is held and listen no more."""
        await self.close()

    async def close(self) -> None:
        """Release what is held, listen no more, complete ``changes``; again does nothing."""
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
