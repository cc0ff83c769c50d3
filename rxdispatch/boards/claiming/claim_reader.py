"""``ClaimReader``: claims tasks from an engine and decodes them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

from rxdispatch.boards.engine import (
    CHUNK,
    ClaimedTask,
    ClaimReply,
    Engine,
)
from rxdispatch.boards.task_codec import TaskCodec, kind_of
from rxdispatch.claim import Claim, ClaimOrigin, Settlement
from rxdispatch.clock import lease_clock_of
from rxdispatch.error_text import describe
from rxdispatch.errors import CodecError
from rxdispatch.intakes import DELIVERY_LEASE, Intakes
from rxdispatch.log import get_logger
from rxdispatch.results import ClaimBatch
from rxdispatch.task import Task

__all__ = ["ClaimReader", "ClaimStep"]

P = TypeVar("P")

ClaimStep = Callable[[int, Sequence[str] | None], Awaitable[ClaimReply]]
"""Claims at most so many tasks, of these ids if there are some."""

log = get_logger(__name__)


class ClaimReader(Generic[P]):
    """Claims tasks for a *board*; a task that the *codec* cannot decode becomes dead."""

    def __init__(self, board: Any, engine: Engine, codec: TaskCodec[P], intakes: Intakes) -> None:
        self._board = board
        self._engine = engine
        self._codec = codec
        self._intakes = intakes

    async def claim(
        self, limit: int, ids: Sequence[str] | None, step: ClaimStep, worker: str, lease: float
    ) -> ClaimBatch:
        """
        Claim up to *limit* tasks; give them back if the caller is cancelled.

        *step* claims at most :data:`~rxdispatch.boards.engine.CHUNK` tasks, of *ids* if given.
        """
        if self._engine.instant:
            # Only here can a cancellation arrive. This also lets other tasks run.
            await asyncio.sleep(0)
            return await self._claim(limit, ids, step, worker, lease)
        return await self._intakes.read(self._claim(limit, ids, step, worker, lease))

    def read(self, found: list[ClaimedTask], worker: str, deadline: float) -> list[Claim[P]]:
        """Return the claims of tasks that were handed over."""
        claims: list[Claim[P]] = []
        clock = lease_clock_of(asyncio.get_running_loop())
        self._decode(found, ClaimOrigin(self._board, worker, clock), deadline, claims)
        return claims

    async def _claim(
        self, limit: int, ids: Sequence[str] | None, step: ClaimStep, worker: str, lease: float
    ) -> ClaimBatch:
        clock = lease_clock_of(asyncio.get_running_loop())
        origin = ClaimOrigin(self._board, worker, clock)
        claims: list[Claim[P]] = []
        handed: list[Claim[P]] = []
        left, wanted = limit, ids
        while True:
            most = min(left, CHUNK)
            some = None if wanted is None else wanted[:CHUNK]
            # Counted from before the call, since the lease on the server starts later.
            now = clock()
            try:
                reply = await step(most, some)
            except BaseException:
                self._intakes.give_back([*claims, *handed])
                raise
            found = [*reply.found, *reply.handed]
            broken = self._decode(reply.found, origin, now + lease, claims)
            broken += self._decode(reply.handed, origin, now + DELIVERY_LEASE, handed)
            left -= len(found) - broken
            if wanted is not None:
                # Tasks that did not fit into the reply are still ready; claim them again.
                if not found or reply.due_in != 0:
                    wanted = wanted[CHUNK:]
                ended = not wanted
            else:
                # Due at once: there was more than fits into one reply or one sweep.
                ended = len(found) < most and reply.due_in != 0
            if left <= 0 or ended:
                return ClaimBatch(claims, reply.due_in, handed, reply.parked)

    def _decode(
        self,
        found: Sequence[ClaimedTask],
        origin: ClaimOrigin,
        deadline: float,
        claims: list[Claim[P]],
    ) -> int:
        """Append readable tasks to *claims*; make the others dead and return how many."""
        decode = self._codec.decode
        broken: list[Settlement] = []
        for item in found:
            try:
                task = decode(item.id, item.record)
            except CodecError as error:
                log.warning(
                    "task_undecodable", board=self._board.name, task=item.id, error=str(error)
                )
                claim: Claim[Any] = Claim(
                    Task.trusted(None, item.id, kind_of(item.record)),
                    item.token,
                    item.attempts + 1,
                    item.crashes,
                    origin,
                    deadline,
                )
                broken.append(claim.dead("undecodable", describe(error)))
            else:
                claims.append(
                    Claim(task, item.token, item.attempts + 1, item.crashes, origin, deadline)
                )
        if broken:
            self._intakes.post(broken)
        return len(broken)
