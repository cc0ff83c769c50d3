"""``Lookups``: fetches single nodes from the registry, many in one call."""

from __future__ import annotations

import asyncio
import time
from contextvars import Context
from typing import Final

from redis.exceptions import ResponseError

from rxdispatch.errors import RxDispatchError
from rxdispatch.log import get_logger
from rxdispatch.nodes.engine import FleetEngine
from rxdispatch.nodes.feed.sequencer import Sequencer
from rxdispatch.nodes.feed.stats import Counters
from rxdispatch.nodes.replica.replica import Replica

__all__ = ["Lookups"]

log = get_logger(__name__)

_BATCH: Final = 500


class Lookups:
    """
    Combines the look-ups of one turn of the loop, or of the time of a call, into one call.

    Callers that want a node which is being looked up share the reply. The replica ignores the
    parts of a late reply that are out of date.

    Args:
        engine: The registry.
        replica: The replica to which replies are applied.
        sequencer: Parses the replies.
        counters: Counts the calls.
    """

    def __init__(
        self, engine: FleetEngine, replica: Replica, sequencer: Sequencer, counters: Counters
    ) -> None:
        self._engine = engine
        self._replica = replica
        self._sequencer = sequencer
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._wanted: dict[str, asyncio.Future[bool]] = {}
        self._asked: dict[str, asyncio.Future[bool]] = {}
        self._task: asyncio.Task[None] | None = None

    def ask(self, node: str) -> asyncio.Future[bool]:
        """
        Look up a node; return a future that all its callers share.

        The result is True once a reply was applied, False if the look-up failed.
        """
        # A call in flight may return a state from before a change that this caller knows about.
        # That is good enough: a read gets here only while the feed is not current.
        found = self._wanted.get(node) or self._asked.get(node)
        if found is None:
            found = self._wanted[node] = self._loop.create_future()
            if self._task is None:
                # The task serves later callers too, so it runs in no caller's context.
                self._task = self._loop.create_task(self._run(), context=Context())
        return found

    async def close(self) -> None:
        """Cancel the call in flight, and answer all callers with False."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self._answer(self._wanted, applied=False)

    async def _run(self) -> None:
        try:
            while self._wanted:
                # More ids may come in this turn of the loop.
                await asyncio.sleep(0)
                ids = list(self._wanted)[:_BATCH]
                self._asked = {node: self._wanted.pop(node) for node in ids}
                answered = 0
                try:
                    answered = await self._lookup(ids)
                except (RxDispatchError, ResponseError) as error:
                    log.info("lookup_failed", count=len(ids), error=str(error))
                finally:
                    if answered:
                        # Ask again for the ids for which the reply had no room.
                        left = {node: self._asked.pop(node) for node in ids[answered:]}
                        self._wanted = left | self._wanted
                    self._answer(self._asked, applied=answered > 0)
        finally:
            self._task = None
            # However the task ended, no caller may wait for an answer that never comes.
            self._answer(self._wanted, applied=False)

    async def _lookup(self, ids: list[str]) -> int:
        """Look up as many of the first *ids* as one reply holds, and return how many."""
        started = time.perf_counter()
        page = await self._engine.lookup(ids)
        self._counters.took(time.perf_counter() - started)
        if page.position.epoch != self._replica.epoch:
            return 0
        message = self._sequencer.read(page.message, trusted=True)
        if message is None:
            return 0
        self._replica.fill(message.rows, page.position.seq)
        return message.length

    @staticmethod
    def _answer(futures: dict[str, asyncio.Future[bool]], *, applied: bool) -> None:
        for future in futures.values():
            if not future.done():
                future.set_result(applied)
        futures.clear()
