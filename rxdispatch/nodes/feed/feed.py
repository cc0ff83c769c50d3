"""``Feed``: the reading side of a fleet, for everybody in this process."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import timedelta
from types import TracebackType
from typing import Final, Self, Unpack

from reactivex import Observable
from reactivex.disposable import CompositeDisposable

from rxdispatch.checks import integer
from rxdispatch.clock import clock_of
from rxdispatch.config import FeedSettings
from rxdispatch.errors import ConfigError, NoCapacityError, StoreUnavailableError
from rxdispatch.home import Home
from rxdispatch.log import get_logger
from rxdispatch.node import Mode, Node, NodeChange, Slot, node_id
from rxdispatch.nodes.engine import FleetEngine
from rxdispatch.nodes.feed.fetching import Fetching
from rxdispatch.nodes.feed.lapse_timer import LapseTimer
from rxdispatch.nodes.feed.lookups import Lookups
from rxdispatch.nodes.feed.modes import Modes
from rxdispatch.nodes.feed.replica import Replica
from rxdispatch.nodes.feed.sequencer import Sequencer
from rxdispatch.nodes.feed.snapshot import Snapshot
from rxdispatch.nodes.feed.snapshot_sync import SnapshotSync
from rxdispatch.nodes.feed.stats import Counters, FeedStats
from rxdispatch.nodes.feed.sync import Sync
from rxdispatch.nodes.feed.unopened import RULE as UNOPENED
from rxdispatch.nodes.feed.unopened import Unopened
from rxdispatch.nodes.placement.criteria import Criteria
from rxdispatch.nodes.placement.criteria_cache import CriteriaArguments, CriteriaCache
from rxdispatch.nodes.placement.explanation import Explanation
from rxdispatch.nodes.placement.placements import Placements
from rxdispatch.nodes.placement.selector import Selector
from rxdispatch.nodes.placement.slots import Slots
from rxdispatch.relay import Relay
from rxdispatch.seconds import seconds
from rxdispatch.store.pubsub.channels import Channels

__all__ = ["Feed"]

log = get_logger(__name__)

_TRIES: Final = 5
_FALLBACKS: Final = 3
_MOST: Final = 256


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
        self._channels = channels
        self._channel = engine.keys.changes
        self._limit = limit
        self._counters = Counters()
        self._relay: Relay[NodeChange] = Relay("changes")
        self._replica = replica = Replica(clock_of(loop), self)
        self._nodes: dict[str, Node] = Unopened()
        self._placements = Placements(clock_of(loop))
        self._selector = Selector(replica.nodes, self._placements, random.Random())
        self._modes = Modes(self._counters)
        self._changes = self._home.guard(self._relay.observable)
        self._mode_changes = self._home.guard(self._modes.observable)
        self._sequencer = Sequencer(replica, self._counters, self._woken)
        self._lookups = Lookups(engine, replica, self._sequencer, self._counters)
        self._snapshot = None
        self._snapshot_sync = None
        if settings.snapshot_path is not None:
            self._snapshot = Snapshot(settings.snapshot_path, name)
            self._snapshot_sync = SnapshotSync(self._snapshot, replica)
        self._sync = Sync(
            engine=engine,
            channels=channels,
            replica=replica,
            sequencer=self._sequencer,
            lookups=self._lookups,
            modes=self._modes,
            snapshot_sync=self._snapshot_sync,
            counters=self._counters,
            settings=settings,
            on_synced=self._synced,
        )
        self._fetching = Fetching(
            replica, self._lookups, self._sync, self._modes, self._counters, settings.check_timeout
        )
        self._slots = Slots(engine, self._refused)
        self._lapses = LapseTimer(self._lapse)
        self._criteria = CriteriaCache()
        self._written = engine.written.observable
        self._sources = CompositeDisposable()
        self._task: asyncio.Task[None] | None = None
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
        return self._changes

    @property
    def mode(self) -> Mode:
        """Where the feed's knowledge comes from."""
        return self._modes.mode

    @property
    def modes(self) -> Observable[Mode]:
        """The mode, and each one that follows."""
        return self._mode_changes

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
        self._look_at_ttls()
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
        self._look_at_ttls()
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
        taken: list[Slot] = []
        try:
            for _ in range(_TRIES):
                candidates = self._candidates(wanted, min(count, _MOST) - len(taken))
                if not candidates:
                    break
                # Several of them may have gone for the same last slot.
                slots = await self._take(candidates, span)
                taken += [slot for slot in slots if slot is not None]
        except BaseException:
            self.release_later(taken)
            raise
        return taken

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
            if self._snapshot is not None:
                await self._snapshot.open()
            messages = self._channels.channel(self._channel)
            self._sources.add(messages.subscribe(self._sequencer.heard))
            self._sources.add(self._written.subscribe(self._sequencer.wrote))
            self._task = asyncio.get_running_loop().create_task(self._run())
            await self._until_ready()
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
            if self._task is not None:
                self._task.cancel()
                await asyncio.gather(self._task, return_exceptions=True)
            await self._lookups.close()
            await self._slots.close()
        finally:
            self._sources.dispose()
            if self._snapshot_sync is not None:
                await self._snapshot_sync.close()
            self._relay.complete()
            self._modes.complete()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._limit / 2):
                # To read the fleet before would be to read it twice.
                await self._channels.confirmed(self._channel)
        except (TimeoutError, StoreUnavailableError):
            pass
        try:
            await self._sync.run()
        except Exception as error:
            # A bug; what is known must not be taken for fresh.
            log.error("feed_failed", failure=error)
            self._modes.switch(Mode.LOCAL_ONLY)
            raise

    async def _until_ready(self) -> None:
        assert self._task is not None
        ready = asyncio.get_running_loop().create_task(self._sync.ready.wait())
        calls = -1
        try:
            # A large fleet takes its time; what must not happen is that nothing comes.
            while calls != self._counters.calls and not self._sync.ready.is_set():
                calls = self._counters.calls
                await asyncio.wait(
                    {ready, self._task},
                    timeout=self._limit * 1.5,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if self._task.done():
                    self._task.result()
        finally:
            ready.cancel()
        if not self._sync.ready.is_set():
            error = self._sync.error
            if isinstance(error, ConfigError):
                # What the server forbids it also forbids the next time.
                raise ConfigError(error.rule)
            raise StoreUnavailableError("read the fleet", why=getattr(error, "why", ""))

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
        slot = await self._one(criteria, lease)
        try:
            yield slot
        finally:
            await self._slots.release(slot)

    async def _one(self, criteria: Criteria, lease: float) -> Slot:
        refused: set[str] = set()
        self._look_at_ttls()
        for _ in range(_TRIES):
            nodes = self._selector.pick(criteria, _FALLBACKS + len(refused))
            nodes = [node for node in nodes if node.id not in refused][:_FALLBACKS]
            if not nodes:
                break
            self._placements.placed(nodes[0].id)
            slot = (await self._take([nodes], lease))[0]
            if slot is not None:
                return slot
            refused.update(node.id for node in nodes)
        raise NoCapacityError(str(criteria))

    def _candidates(self, wanted: Criteria, count: int) -> list[list[Node]]:
        candidates: list[list[Node]] = []
        self._look_at_ttls()
        for _ in range(count):
            nodes = self._selector.pick(wanted, _FALLBACKS)
            if not nodes:
                break
            self._placements.placed(nodes[0].id)
            candidates.append(nodes)
        return candidates

    async def _take(self, candidates: list[list[Node]], lease: float) -> list[Slot | None]:
        """Reserve, each on one of its candidates; the first of each was counted as placed."""
        if not candidates:
            return []
        slots = await self._slots.take(candidates, lease)
        for nodes, slot in zip(candidates, slots, strict=True):
            for node in nodes:
                if slot is not None and slot.node is node:
                    break
                if node is nodes[0]:
                    self._placements.unplaced(node.id)
                self._placements.refused(node.id)
            if slot is not None:
                self._placements.accepted(slot.node.id)
                # With this job: the reply that gave the slot has told of it.
                slot.node = self._nodes.get(slot.node.id, slot.node)
        return slots

    def _refused(self, data: bytes) -> None:
        message = self._sequencer.read(data, trusted=True)
        if message is not None and message.epoch == self._replica.epoch:
            self._replica.fill(message.rows, message.first)

    # -- what the parts tell -----------------------------------------------------------------

    def changed(self, previous: Node | None, node: Node | None) -> None:
        """The replica has changed; for the parts that follow it."""
        known = node or previous
        assert known is not None
        self._selector.changed(previous, node)
        self._placements.heard(known.id)
        if self._snapshot_sync is not None:
            self._snapshot_sync.changed(known.id)

    def replaced(self) -> None:
        """The whole replica may be another one."""
        self._selector.clear()
        if self._snapshot_sync is not None:
            self._snapshot_sync.replaced()

    def told(self, change: NodeChange) -> None:
        """Hand a change to the subscribers."""
        self._relay.emit(change)

    def doubted(self, node: str) -> None:
        """Have a node looked up."""
        self._sync.doubt(node)

    def lapses(self, at: float) -> None:
        """Look at the ttls at *at*."""
        self._lapses.announce(at)

    def _lapse(self) -> None:
        # While nothing is proven, silence says nothing of a node; the next pulse looks again.
        if self._sync.current:
            self._replica.lapse()

    def _look_at_ttls(self) -> None:
        """Do what the timer does, which a busy loop may call late."""
        if self._replica.due:
            self._lapse()

    def _woken(self) -> None:
        self._sync.wake()

    def _synced(self) -> None:
        replica = self._replica
        self._lapse()
        self._relay.emit(NodeChange("synced", None, None, replica.epoch.hex(), replica.high))
