"""``Sync``: which pulses count on the way back to NORMAL."""

from __future__ import annotations

import asyncio
from typing import Any

from rxdispatch.config import FeedSettings
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.node import Mode
from rxdispatch.nodes.engine import Position
from rxdispatch.nodes.feed.modes import Modes
from rxdispatch.nodes.feed.sequencer import Sequencer
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.feed.sync import Sync
from rxdispatch.nodes.replica.doubts import Doubts
from rxdispatch.testing import run_virtual
from tests.nodes.replicas import FIRST, made


class Server:
    """A registry without changes, and its Pub/Sub, which answers while ``pongs`` is True."""

    def __init__(self) -> None:
        self.pongs = True

    async def pulse(self) -> Position:
        """Return the position."""
        return Position(FIRST, 0, 0)

    async def barrier(self, _: float) -> None:
        """Answer, or fail."""
        if not self.pongs:
            raise StoreUnavailableError("ping the channels")


def _synced(server: Any) -> tuple[Sync, Modes]:
    """Return a sync, and its modes, of a replica that has caught up."""
    replica, _, _ = made()
    counters, doubts = Counters(), Doubts()
    modes = Modes(counters)
    sequencer = Sequencer(replica, counters, doubts.wake.set)
    sequencer.receive(None)
    sequencer.caught_up()
    unused: Any = None
    sync = Sync(
        engine=server,
        channels=server,
        replica=replica,
        doubts=doubts,
        sequencer=sequencer,
        lookups=unused,
        modes=modes,
        snapshot_sync=None,
        counters=counters,
        settings=FeedSettings(),
    )
    sync._listed = True
    return sync, modes


def test_a_pulse_without_pong_between_two_others() -> None:
    """It breaks the row of two successful pulses that ends an outage."""

    async def main() -> list[Mode]:
        server = Server()
        sync, modes = _synced(server)
        modes.switch(Mode.LOCAL_ONLY)
        seen: list[Mode] = []
        for server.pongs in (True, False, True, True):
            await sync._pulse()
            seen.append(modes.mode)
        return seen

    assert [Mode.LOCAL_ONLY] * 3 + [Mode.NORMAL] == run_virtual(main())


def test_pulses_without_pong() -> None:
    """They fetch what is missing, so the mode stays NORMAL, but the feed is not current."""

    async def main() -> list[tuple[Mode, bool, float]]:
        server, clock = Server(), asyncio.get_running_loop().time
        sync, modes = _synced(server)
        await sync._pulse()
        seen = [(modes.mode, sync.current, clock() - sync.proven_at)]
        server.pongs = False
        await asyncio.sleep(1.0)
        await sync._pulse()
        return [*seen, (modes.mode, sync.current, clock() - sync.proven_at)]

    assert [(Mode.NORMAL, True, 0.0), (Mode.NORMAL, False, 0.0)] == run_virtual(main())
