"""``Fetching``: reads nodes as fresh as a short timeout allows."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Final

from rxdispatch.node import Mode, Node
from rxdispatch.nodes.feed.lookups import Lookups
from rxdispatch.nodes.feed.modes import Modes
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.feed.sync import Sync
from rxdispatch.nodes.replica.replica import Replica

__all__ = ["Fetching"]

_REMEMBERED: Final = (0.5, 1.0)
_MOST: Final = 10_000


class Fetching:
    """
    Returns nodes from the replica; asks the registry first if the replica is not current.

    Args:
        replica: The nodes in memory.
        lookups: Asks the registry.
        sync: Knows whether the replica is current.
        modes: Tells whether the registry can be asked.
        counters: Counts the reads.
        limit: Seconds to wait for an answer.
    """

    def __init__(
        self,
        replica: Replica,
        lookups: Lookups,
        sync: Sync,
        modes: Modes,
        counters: Counters,
        limit: float,
    ) -> None:
        self._nodes = replica.nodes
        self._lookups = lookups
        self._sync = sync
        self._modes = modes
        self._counters = counters
        self._limit = limit
        self._clock = asyncio.get_running_loop().time
        # Ids that have no node, each with the time until which it is not asked for again. The
        # replica is read first, so a node that a message adds meanwhile is found.
        self._misses: dict[str, float] = {}

    async def fetch(self, ids: Sequence[str]) -> dict[str, Node | None]:
        """Return nodes by id."""
        counters, nodes = self._counters, self._nodes
        if self._sync.current:
            counters.hits_l1 += len(ids)
        elif self._modes.mode is Mode.L2_ONLY:
            counters.hits_l2 += len(ids)
        elif self._modes.mode is Mode.LOCAL_ONLY:
            counters.hits_stale += len(ids)
        else:
            await self._check(ids)
        found = {node: nodes.get(node) for node in ids}
        counters.misses += sum(node is None for node in found.values())
        return found

    async def _check(self, ids: Sequence[str]) -> None:
        counters, nodes, now = self._counters, self._nodes, self._clock()
        asked = {
            node: self._lookups.ask(node)
            for node in ids
            if node in nodes or self._misses.get(node, 0.0) <= now
        }
        if not asked:
            return
        # Several callers share these futures; asyncio.wait cancels none of them.
        _, late = await asyncio.wait(set(asked.values()), timeout=self._limit)
        if late:
            counters.check_timeouts += 1
        for node, answer in asked.items():
            if not answer.done() or answer.cancelled() or not answer.result():
                counters.hits_stale += 1
                continue
            counters.hits_redis += 1
            if node not in nodes:
                if len(self._misses) >= _MOST:
                    self._misses.clear()
                self._misses[node] = self._clock() + random.uniform(*_REMEMBERED)
