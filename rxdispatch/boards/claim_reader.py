"""``ClaimReader``: claims tasks from an engine and decodes them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from rxdispatch.boards.engine import CHUNK, ClaimedTask, Engine
from rxdispatch.boards.task_codec import TaskCodec, kind_of
from rxdispatch.claim import Claim, ClaimOrigin, Settlement
from rxdispatch.clock import lease_clock_of
from rxdispatch.error_text import describe
from rxdispatch.errors import CodecError
from rxdispatch.intakes import Intakes
from rxdispatch.log import get_logger
from rxdispatch.results import ClaimBatch
from rxdispatch.task import Task

__all__ = ["ClaimReader"]

P = TypeVar("P")

log = get_logger(__name__)


class ClaimReader(Generic[P]):
    """Claims tasks for a *board*; a task that the *codec* cannot decode becomes dead."""

    def __init__(self, board: Any, engine: Engine, codec: TaskCodec[P], intakes: Intakes) -> None:
        self._board = board
        self._engine = engine
        self._codec = codec
        self._intakes = intakes

    async def claim(
        self,
        limit: int,
        ids: Sequence[str] | None,
        kinds: Sequence[str] | None,
        worker: str,
        lease: float,
    ) -> ClaimBatch:
        """Claim up to *limit* tasks; give them back if the caller is cancelled."""
        if self._engine.instant:
            # Only here can a cancellation arrive. This also lets other tasks run.
            await asyncio.sleep(0)
            return await self._claim(limit, ids, kinds, worker, lease)
        return await self._intakes.read(self._claim(limit, ids, kinds, worker, lease))

    async def _claim(
        self,
        limit: int,
        ids: Sequence[str] | None,
        kinds: Sequence[str] | None,
        worker: str,
        lease: float,
    ) -> ClaimBatch:
        clock = lease_clock_of(asyncio.get_running_loop())
        origin = ClaimOrigin(self._board, worker, clock)
        claims: list[Claim[P]] = []
        due: float | None = None
        left, wanted = limit, ids
        while True:
            step = min(left, CHUNK)
            some = None if wanted is None else wanted[:CHUNK]
            # Counted from before the call, since the lease on the server starts later.
            deadline = clock() + lease
            try:
                found, due = await self._engine.claim(step, some, kinds, worker, lease)
            except BaseException:
                self._intakes.give_back(claims)
                raise
            broken = self._decode(found, origin, deadline, claims)
            left -= len(found) - broken
            if wanted is not None:
                # Tasks that did not fit into the reply are still ready; claim them again.
                if not found or due != 0:
                    wanted = wanted[CHUNK:]
                ended = not wanted
            else:
                # Due at once: there was more than fits into one reply or one sweep.
                ended = len(found) < step and due != 0
            if left <= 0 or ended:
                return ClaimBatch(claims, due)

    def _decode(
        self, found: list[ClaimedTask], origin: ClaimOrigin, deadline: float, claims: list[Claim[P]]
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
