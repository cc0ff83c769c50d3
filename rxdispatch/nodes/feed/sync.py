"""``Sync``: the task that keeps a replica equal to the registry, with a proof every second."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable
from typing import Final, TypeVar

from redis.exceptions import ResponseError

from rxdispatch.config import FeedSettings
from rxdispatch.errors import CodecError, RxDispatchError, StoreUnavailableError
from rxdispatch.log import get_logger
from rxdispatch.node import Mode
from rxdispatch.nodes.engine import FleetEngine, Page, Position
from rxdispatch.nodes.feed.lookups import Lookups
from rxdispatch.nodes.feed.modes import Modes
from rxdispatch.nodes.feed.sequencer import Sequencer
from rxdispatch.nodes.feed.snapshot_sync import SnapshotSync
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.records import Message, NodeRow
from rxdispatch.nodes.replica.doubts import Doubts
from rxdispatch.nodes.replica.replica import Replica
from rxdispatch.store.pubsub.channels import Channels

__all__ = ["Sync"]

log = get_logger(__name__)

T = TypeVar("T")

_PAGE: Final = 1000
_SPREAD: Final = (0.8, 1.0)
# A pulse times out after _LIMIT pulse intervals, but never in less than _LEAST_LIMIT seconds.
# Together with the pause after a failure, this bounds how long a repaired connection goes
# unnoticed.
_LIMIT: Final = 0.5
_LEAST_LIMIT: Final = 0.3
_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
_SOON: Final = 0.2
# In pulse intervals: how long a proof is valid, and how long the feed goes without one before its
# mode changes (at least _LEAST_TROUBLE seconds).
_PROOF: Final = 1.5
_TROUBLE: Final = 2.0
_LEAST_TROUBLE: Final = 1.0


class Sync:
    """
    One task that does one thing at a time: pulse, catch up, relist, look up.

    A pulse asks the registry for its position and pings the Pub/Sub connection. By then every
    earlier message has arrived or is lost, so the loss of the very last message is noticed too.

    Args:
        engine: The registry.
        channels: Its Pub/Sub.
        replica: The replica that is kept equal to the registry.
        doubts: The nodes to look up.
        sequencer: Applies the messages.
        lookups: Fetches single nodes.
        modes: Counts proofs and failures.
        snapshot_sync: The snapshot on disk, if there is one.
        counters: Where calls are counted.
        settings: Intervals and limits.
    """

    def __init__(
        self,
        *,
        engine: FleetEngine,
        channels: Channels,
        replica: Replica,
        doubts: Doubts,
        sequencer: Sequencer,
        lookups: Lookups,
        modes: Modes,
        snapshot_sync: SnapshotSync | None,
        counters: Counters,
        settings: FeedSettings,
    ) -> None:
        self._engine = engine
        self._channels = channels
        self._replica = replica
        self._doubts = doubts
        self._wake = doubts.wake
        self._sequencer = sequencer
        self._lookups = lookups
        self._modes = modes
        self._snapshot_sync = snapshot_sync
        self._counters = counters
        self._settings = settings
        self._clock = asyncio.get_running_loop().time
        self._listed = False
        self._alive = False
        self._failures = 0
        self._next_pulse = 0.0
        self._patience = max(_LEAST_LIMIT, _LIMIT * settings.pulse_interval)
        self._trouble = max(_LEAST_TROUBLE, _TROUBLE * settings.pulse_interval)
        #: When the last pulse began that left no change missing, on the loop's clock. Without a
        #: PONG too: such a pulse has fetched what was missing.
        self.proven_at = float("-inf")
        #: The error of the last step that failed.
        self.error: Exception | None = None
        #: Set once the replica has been equal to the registry, or to a recent snapshot.
        self.ready = asyncio.Event()

    @property
    def current(self) -> bool:
        """Whether the replica provably lacks no change older than 1.5 pulse intervals."""
        return (
            self._alive
            and not self._sequencer.behind
            and not self._sequencer.resubscribed
            and self._clock() < self.proven_at + _PROOF * self._settings.pulse_interval
        )

    def lapse(self) -> None:
        """Suspect nodes whose ttl has run out if the feed is current; else the next pulse does."""
        # While nothing is proven, silence says nothing about a node.
        if self.current:
            self._replica.lapse()

    def lapse_due(self) -> None:
        """Suspect nodes whose ttl has run out now: on a busy loop the timer may fire late."""
        if self._replica.due:
            self.lapse()

    async def run(self) -> None:
        """Run until cancelled."""
        if self._snapshot_sync is not None:
            await self._snapshot_sync.preload()
            self._listed = self._replica.epoch != b""
        while True:
            self._wake.clear()
            try:
                await self._step()
            except (RxDispatchError, TimeoutError, ResponseError) as error:
                await self._failed(error)
                pause = min(_FIRST_PAUSE * 2 ** min(self._failures, 8), _LONGEST_PAUSE)
                self._failures += 1
                self._next_pulse = 0.0
                await asyncio.sleep(random.uniform(0, pause))
                continue
            wait = self._next_pulse - self._clock()
            if wait > 0 and not (self._sequencer.behind and self._sequencer.confirmed):
                try:
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
                except TimeoutError:
                    pass

    async def _step(self) -> None:
        if self._clock() >= self._next_pulse or self._sequencer.resubscribed:
            await self._pulse()
        elif self._sequencer.behind and self._sequencer.confirmed:
            await self._catch_up()
        if self._doubts:
            await self._resolve()

    # -- the proof ---------------------------------------------------------------------------

    async def _pulse(self) -> None:
        started = self._clock()
        high = self._replica.high
        self._sequencer.resubscribed = False
        async with asyncio.timeout(self._patience):
            position = await self._timed(self._engine.pulse())
        if self._lost(position, high):
            await self._relist()
        else:
            if self._failures and position.seq > self._replica.high:
                # If calls failed, messages did too: do not wait for a PONG that may never come.
                await self._catch_up()
            # Ping before deciding that a message is missing: it may still be in transit.
            self._alive = await self._ping()
            if self._sequencer.behind or position.seq > self._replica.high:
                await self._catch_up()
        self.proven_at = started
        self._failures = 0
        self._replica.lapse()
        if not self._alive or self._sequencer.behind:
            self._modes.failed()
        elif self._modes.proven():
            self._recovered()
        pace = self._settings.pulse_interval * random.uniform(*_SPREAD)
        if self._modes.mode is not Mode.NORMAL:
            pace = min(pace, _SOON)
        self._next_pulse = started + pace
        self.ready.set()
        if self._snapshot_sync is not None:
            self._snapshot_sync.save()

    def _lost(self, position: Position, high: int) -> bool:
        """Whether the registry has lost data, or has dropped changes that the replica lacks."""
        return (
            not self._listed
            or position.epoch != self._replica.epoch
            or position.seq < high
            or position.floor > self._replica.high
        )

    async def _ping(self) -> bool:
        if not self._sequencer.confirmed:
            return False
        try:
            await self._channels.barrier(self._patience)
        except StoreUnavailableError:
            return False
        return True

    # -- what was missed ---------------------------------------------------------------------

    async def _catch_up(self) -> None:
        replica, sequencer = self._replica, self._sequencer
        self._counters.catch_ups += 1
        before, held = replica.high, sequencer.held
        while True:
            page = await self._timed(self._engine.changes(replica.high, _PAGE))
            if self._lost(page.position, replica.high):
                await self._relist()
                return
            message = self._read(page)
            if not page.more:
                replica.fill(message.rows, page.position.seq, complete=True)
                break
            replica.fill(message.rows, message.last, complete=True)
        # If the registry has nothing new, messages held before the call were not its own.
        self._caught_up(held if replica.high == before else 0)

    async def _relist(self) -> None:
        """Read the whole fleet, and replace the nodes in one step."""
        # Messages are held back until the nodes are replaced, or a page could undo a newer message.
        self._sequencer.behind = True
        self._counters.relists += self._listed
        rows: dict[str, NodeRow] = {}
        after, epoch = 0, b""
        while True:
            page = await self._timed(self._engine.changes(after, _PAGE))
            found = page.position.epoch
            if not found or epoch not in {b"", found}:
                # The data was lost while the fleet was being read.
                after, epoch = 0, b""
                rows.clear()
                if not found:
                    # Nothing has been written since then either: a pulse begins an epoch.
                    await self._timed(self._engine.pulse())
                continue
            epoch = found
            message = self._read(page)
            for row in message.rows:
                # A node that changes while the fleet is being read appears again on a later page.
                if row.node is None:
                    rows.pop(row.id, None)
                else:
                    rows[row.id] = row
            if not page.more:
                break
            after = message.last
        self._replica.replace(epoch, rows.values(), page.position.seq)
        self._listed = True
        self._caught_up()
        if self._sequencer.confirmed:
            self._alive = await self._ping()

    def _read(self, page: Page) -> Message:
        message = self._sequencer.read(page.message, trusted=True)
        if message is None:
            # Another version of this library wrote it, so this version can never read it.
            raise CodecError("the registry must have a format that this version can read")
        return message

    def _caught_up(self, bogus: int = 0) -> None:
        self._sequencer.caught_up(bogus)
        self.lapse()
        self._replica.synced()

    async def _resolve(self) -> None:
        """Look up the nodes in doubt."""
        asked = self._doubts.take()
        answers = [self._lookups.ask(node) for node in asked]
        await asyncio.wait(answers)
        late = [node for node, a in zip(asked, answers, strict=True) if not a.result()]
        for node in late:
            self._doubts.add(node)
        if late:
            raise StoreUnavailableError("look up nodes")

    # -- trouble -----------------------------------------------------------------------------

    async def _failed(self, error: Exception) -> None:
        settings = self._settings
        self.error = error
        self._modes.failed()
        away = self._clock() - self.proven_at
        if not self._failures:
            log.warning("feed_behind", error=str(error) or type(error).__name__)
        if away <= self._trouble:
            return
        self._alive = False
        age = float("inf")
        if self._snapshot_sync is not None:
            age = await self._snapshot_sync.refresh(away)
            self._listed = self._replica.epoch != b""
        if age <= settings.max_snapshot_age:
            self._modes.switch(Mode.L2_ONLY)
            self.ready.set()
        else:
            self._modes.switch(Mode.LOCAL_ONLY)
        if min(away, age) > settings.max_staleness:
            self._replica.suspect_all()

    def _recovered(self) -> None:
        # They were suspect for lack of proof. Their changes have arrived, so look them up.
        for node in self._replica.suspects():
            self._doubts.add(node)

    async def _timed(self, call: Awaitable[T]) -> T:
        started = time.perf_counter()
        reply = await call
        self._counters.took(time.perf_counter() - started)
        return reply
