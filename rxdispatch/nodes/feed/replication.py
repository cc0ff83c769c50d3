"""``Replication``: keeps a replica equal to the registry for as long as a feed is open."""

from __future__ import annotations

import asyncio

from reactivex.disposable import CompositeDisposable

from rxdispatch.config import FeedSettings
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.node import Mode
from rxdispatch.nodes.engine import FleetEngine
from rxdispatch.nodes.feed.lookups import Lookups
from rxdispatch.nodes.feed.modes import Modes
from rxdispatch.nodes.feed.sequencer import Sequencer
from rxdispatch.nodes.feed.snapshot import Snapshot
from rxdispatch.nodes.feed.snapshot_sync import SnapshotSync
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.feed.sync import Sync
from rxdispatch.nodes.replica.doubts import Doubts
from rxdispatch.nodes.replica.replica import Replica
from rxdispatch.nodes.replica.unsaved import Unsaved
from rxdispatch.store.pubsub.channels import Channels

__all__ = ["Replication"]

log = get_logger(__name__)


class Replication:
    """
    Everything that writes to one replica: messages, the sync task, look-ups, the snapshot.

    Args:
        engine: The registry.
        channels: Its Pub/Sub.
        replica: The replica that is kept equal to the registry.
        doubts: The nodes that the replica wants looked up.
        unsaved: The nodes to save to the snapshot.
        modes: Where the feed gets its data from.
        counters: Counts calls and messages.
        settings: How the replica keeps up.
        limit: Seconds that :meth:`start` may take, reading the fleet not included.
        name: Identifies the registry in the snapshot.
    """

    def __init__(
        self,
        *,
        engine: FleetEngine,
        channels: Channels,
        replica: Replica,
        doubts: Doubts,
        unsaved: Unsaved,
        modes: Modes,
        counters: Counters,
        settings: FeedSettings,
        limit: float,
        name: str,
    ) -> None:
        self.sequencer = Sequencer(replica, counters, doubts.wake.set)
        self.lookups = Lookups(engine, replica, self.sequencer, counters)
        self._snapshot = self._snapshot_sync = None
        if settings.snapshot_path is not None:
            self._snapshot = Snapshot(settings.snapshot_path, name)
            self._snapshot_sync = SnapshotSync(self._snapshot, replica, unsaved)
        self.sync = Sync(
            engine=engine,
            channels=channels,
            replica=replica,
            doubts=doubts,
            sequencer=self.sequencer,
            lookups=self.lookups,
            modes=modes,
            snapshot_sync=self._snapshot_sync,
            counters=counters,
            settings=settings,
        )
        self._modes = modes
        self._counters = counters
        self._limit = limit
        self._channels = channels
        self._channel = engine.keys.changes
        self._written = engine.written.observable
        self._sources = CompositeDisposable()
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """
        Subscribe, read the fleet, and return when nothing is missing.

        Raises:
            ConfigError: If the snapshot cannot be opened, or the server forbids a call.
            StoreUnavailableError: If the server cannot be reached, and no recent snapshot has the
                fleet.
        """
        if self._snapshot is not None:
            await self._snapshot.open()
        messages = self._channels.channel(self._channel)
        self._sources.add(messages.subscribe(self.sequencer.receive))
        self._sources.add(self._written.subscribe(self.sequencer.receive_own))
        self._task = asyncio.get_running_loop().create_task(self._run())
        await self._until_ready(self._task)

    async def stop(self) -> None:
        """Stop all calls to the registry; messages are still applied."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self.lookups.close()

    async def close(self) -> None:
        """Unsubscribe, and finish the snapshot."""
        self._sources.dispose()
        if self._snapshot_sync is not None:
            await self._snapshot_sync.close()

    async def _run(self) -> None:
        try:
            async with asyncio.timeout(self._limit / 2):
                # A fleet that was read before the subscription would have to be read again.
                await self._channels.confirmed(self._channel)
        except (TimeoutError, StoreUnavailableError):
            pass
        try:
            await self.sync.run()
        except Exception as error:
            # A bug in this library: the data in memory must not pass for fresh.
            log.error("feed_failed", failure=error)
            self._modes.switch(Mode.LOCAL_ONLY)
            raise

    async def _until_ready(self, task: asyncio.Task[None]) -> None:
        sync = self.sync
        ready = asyncio.get_running_loop().create_task(sync.ready.wait())
        calls = -1
        try:
            # A large fleet takes long to read, so give up only after a wait without any reply.
            while calls != self._counters.calls and not sync.ready.is_set():
                calls = self._counters.calls
                await asyncio.wait(
                    {ready, task},
                    timeout=self._limit * 1.5,
                    return_when=asyncio.FIRST_COMPLETED,
                )
                if task.done():
                    task.result()
        finally:
            ready.cancel()
        if not sync.ready.is_set():
            error = sync.error
            if isinstance(error, ConfigError):
                # Not StoreUnavailableError: a call that the server forbids fails every time.
                raise ConfigError(error.rule)
            raise StoreUnavailableError("read the fleet", why=getattr(error, "why", ""))
