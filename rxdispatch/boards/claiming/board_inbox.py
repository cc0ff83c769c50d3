"""``BoardInbox``: the inbox of a worker, with claims instead of stored tasks."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, Generic, TypeVar

import attrs
from reactivex.abc import DisposableBase

from rxdispatch.boards.claiming.claim_reader import ClaimReader
from rxdispatch.boards.claiming.claim_writer import ClaimWriter
from rxdispatch.boards.engine import ClaimReply, Delivery, Inbox
from rxdispatch.claim import Claim
from rxdispatch.clock import lease_clock_of
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.intakes import DELIVERY_LEASE, Intakes, WorkerInboxListener
from rxdispatch.log import get_logger
from rxdispatch.results import ClaimBatch

__all__ = ["BoardInbox"]

P = TypeVar("P")

log = get_logger(__name__)


class BoardInbox(Generic[P]):
    """
    Reads what an engine's *inbox* gets, and claims through it.

    Args:
        inbox: The inbox of the engine.
        reader: Makes claims of what it gets.
        writer: Confirms them.
        intakes: The background work of the board.
        worker: The worker's label.
        lease: Seconds that claims last.
    """

    def __init__(
        self,
        inbox: Inbox,
        reader: ClaimReader[P],
        writer: ClaimWriter,
        intakes: Intakes,
        worker: str,
        lease: float,
    ) -> None:
        self._inbox = inbox
        self._reader = reader
        self._writer = writer
        self._intakes = intakes
        self._worker = worker
        self._lease = lease
        self._clock = lease_clock_of(asyncio.get_running_loop())
        self._under_way = 0  # claims
        self._cancelled: set[int] = set()  # tokens, while a claim is under way

    def listen(self, listener: WorkerInboxListener) -> DisposableBase:
        """Call *listener* until the returned disposable is disposed."""
        return self._inbox.listen(_Decoding(self, listener))

    @property
    def room(self) -> int | None:
        """For how many more tasks the worker is parked; None if it has no inbox on the board."""
        return self._inbox.room

    async def claim(self, limit: int, *, park: int, ids: Sequence[str] | None = None) -> ClaimBatch:
        """
        Claim up to *limit* tasks, of *ids* if given.

        If there are fewer, wait on the board for at most *park* more.
        """
        # In the turn in which the caller has counted its limit, against which later reads count.
        read = self._inbox.read

        async def step(most: int, some: Sequence[str] | None) -> ClaimReply:
            nonlocal read, park
            reply = await self._inbox.claim(most, some, park, read)
            read, park = reply.read, max(0, park - len(reply.found) - len(reply.handed))
            return reply

        self._under_way += 1
        try:
            batch = await self._reader.claim(limit, ids, step, self._worker, self._lease)
            return self._still_wanted(batch)
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._cancelled.clear()

    async def confirm(
        self, claims: list[Claim[Any]], on_written: Callable[[], None]
    ) -> list[Claim[Any]]:
        """Tell the board that *claims* were read; returns those that are lost."""
        confirm = partial(self._inbox.confirm, on_written=on_written)
        return await self._writer.renew(claims, self._lease, confirm)

    def lose(self, claims: Iterable[Claim[Any]]) -> None:
        """Note that *claims* are lost."""
        self._writer.lose(claims)

    def leave(self) -> None:
        """Wait no more; in the background, what was handed over and not read goes back."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return  # the loop has ended, and its connections with it
        self._intakes.spawn(self._leave())

    async def _leave(self) -> None:
        try:
            await self._inbox.leave()
        except StoreUnavailableError:
            pass  # what was handed over lapses soon, and counts as nothing
        except Exception as error:
            log.warning("leave_failed", worker=self._worker, error=str(error))

    def read(self, delivery: Delivery) -> tuple[list[Claim[P]], float]:
        """Return the claims of a delivery, and how many seconds ago it was made."""
        now = self._clock()
        age = max(0.0, now - delivery.handed_at)
        # If the age is not known, the board says what is lost before a handler starts.
        deadline = (now if age == math.inf else delivery.handed_at) + DELIVERY_LEASE
        return self._reader.read(delivery.found, self._worker, deadline), age

    def note_cancelled(self, tokens: Sequence[int]) -> None:
        """Remember *tokens*: the reply of a claim under way may be older, and have them."""
        if self._under_way:
            self._cancelled.update(tokens)

    def _still_wanted(self, batch: ClaimBatch) -> ClaimBatch:
        if not self._cancelled:
            return batch
        both = (*batch.claims, *batch.handed)
        self.lose(claim for claim in both if claim.token in self._cancelled)
        claims, handed = (
            [claim for claim in some if claim.token not in self._cancelled]
            for some in (batch.claims, batch.handed)
        )
        return attrs.evolve(batch, claims=claims, handed=handed)


class _Decoding:
    """Passes on what an inbox calls, with claims."""

    def __init__(self, inbox: BoardInbox[Any], listener: WorkerInboxListener) -> None:
        self._inbox = inbox
        self._listener = listener
        self.woken = listener.woken
        self.due = listener.due

    def delivered(self, delivery: Delivery) -> None:
        claims, age = self._inbox.read(delivery)
        self._listener.delivered(claims, age)

    def cancelled(self, tokens: Sequence[int]) -> None:
        self._inbox.note_cancelled(tokens)
        self._listener.cancelled(tokens)
