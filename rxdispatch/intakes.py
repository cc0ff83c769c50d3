"""``Intakes``: the operators that claim from a board, and the board's background work."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from contextvars import Context
from typing import Any, Final, Protocol, TypeVar

from reactivex.abc import DisposableBase
from reactivex.disposable import Disposable

from rxdispatch.claim import Claim, Settlement
from rxdispatch.log import get_logger
from rxdispatch.results import ClaimBatch

__all__ = ["DELIVERY_LEASE", "Intake", "Intakes", "WorkerInbox", "WorkerInboxListener"]

T = TypeVar("T")

DELIVERY_LEASE: Final = 2.0
"""Seconds in which a worker has to confirm what is handed to it; ``inboxes.lua`` has it too."""

log = get_logger(__name__)


class Intake(Protocol):
    """An operator that claims tasks from a board and can be told to stop."""

    def stop(self) -> None:
        """Claim nothing more, and give back claims that were not emitted."""
        ...

    def revoke(self) -> None:
        """Cancel the work on every held claim, so that the claims go back."""
        ...

    def renew_soon(self) -> None:
        """Renew every held claim at a random moment within a short while."""
        ...

    def idle(self) -> Awaitable[None]:
        """Wait until nothing is held."""
        ...

    def wind_down(self) -> Awaitable[None]:
        """Wait a short while for cancelled work to end, then give back what is still held."""
        ...


class WorkerInboxListener(Protocol):
    """What the inbox of a worker calls."""

    def woken(self) -> None:
        """There may be something to claim."""
        ...

    def due(self, seconds: float) -> None:
        """A task is due in *seconds*, earlier than was known."""
        ...

    def delivered(self, claims: list[Claim[Any]], age: float) -> None:
        """*claims* were handed over *age* seconds ago."""
        ...

    def cancelled(self, tokens: Sequence[int]) -> None:
        """The claims with these *tokens* were cancelled; any, if there are none."""
        ...


class WorkerInbox(Protocol):
    """Where an operator claims, and waits for what the board hands over."""

    def listen(self, listener: WorkerInboxListener) -> DisposableBase:
        """Call *listener* until the returned disposable is disposed."""
        ...

    @property
    def room(self) -> int | None:
        """For how many more tasks the worker is parked; None if it has no inbox on the board."""
        ...

    async def claim(self, limit: int, *, park: int, ids: Sequence[str] | None = None) -> ClaimBatch:
        """
        Claim up to *limit* tasks, of *ids* if given.

        If there are fewer, wait on the board for at most *park* more.
        """
        ...

    async def confirm(
        self, claims: list[Claim[Any]], on_written: Callable[[], None]
    ) -> list[Claim[Any]]:
        """Tell the board that *claims* were read; returns those that are lost."""
        ...

    def lose(self, claims: Iterable[Claim[Any]]) -> None:
        """Note that *claims* are lost."""
        ...

    def leave(self) -> None:
        """Wait no more; in the background, what was handed over and not read goes back."""
        ...


class Intakes:
    """
    The intakes of one board in this process, and the board's background work.

    Operators claim, give back and settle through this object; users of a board do not need it.

    Args:
        board: The board's name.
        settle: The board's ``settle``.
        inbox: A function that returns a new inbox: of kinds, of a worker, with a lease.
    """

    def __init__(
        self,
        board: str,
        settle: Callable[[list[Settlement]], Awaitable[list[bool]]],
        inbox: Callable[[Sequence[str] | None, str | None, float], WorkerInbox],
    ) -> None:
        self._board = board
        self._settle = settle
        #: Returns a new inbox of a worker: for which kinds, its label, the seconds of its leases.
        self.inbox = inbox
        self._enlisted: set[Intake] = set()
        self._background: set[asyncio.Task[Any]] = set()
        self._reading: set[asyncio.Task[ClaimBatch]] = set()

    def enlist(self, intake: Intake) -> DisposableBase:
        """Add *intake* to those that are drained when the board's owner closes."""
        self._enlisted.add(intake)
        return Disposable(lambda: self._enlisted.discard(intake))

    def renew_soon(self) -> None:
        """Renew the claims of all intakes, as another server may not know some of them."""
        for intake in tuple(self._enlisted):
            intake.renew_soon()

    def give_back(self, claims: list[Claim[Any]], delay: float = 0.0) -> None:
        """Release *claims* in the background; the board's owner waits for that when it closes."""
        self.post([claim.release(delay) for claim in claims if not claim._answered])

    def post(self, settlements: list[Settlement]) -> None:
        """Settle in the background; the board's owner waits for that when it closes."""
        if settlements:
            self.spawn(self._settle_quietly(settlements))

    async def read(self, work: Coroutine[Any, Any, ClaimBatch]) -> ClaimBatch:
        """Return the claims of *work*; give them back if the caller is cancelled."""
        # Shielded: a claim that is cancelled halfway may have changed marks already, and those
        # tasks must go back rather than wait for their leases to lapse.
        reading = self.spawn(work)
        self._reading.add(reading)
        try:
            return await asyncio.shield(reading)
        except asyncio.CancelledError:
            if reading.done():
                self._return_unread(reading)
            else:
                reading.add_done_callback(self._return_unread)
            raise
        finally:
            self._reading.discard(reading)

    async def drain(self, grace: float, hurry: asyncio.Event) -> None:
        """
        Stop claiming, give running work *grace* seconds, then cancel it and give it back.

        Once *hurry* is set, the grace is over.
        """
        intakes = list(self._enlisted)
        for intake in intakes:
            try:
                intake.stop()
            except Exception as error:
                # A subscriber's on_completed raised; the other intakes must stop too.
                log.error("subscriber_failed", source=self._board, failure=error)
        if intakes and grace > 0:
            await self._wait(intakes, grace, hurry)
        for intake in intakes:
            intake.revoke()
        await asyncio.gather(*(intake.wind_down() for intake in intakes))
        await self.finished()

    async def finished(self) -> None:
        """Wait for the work in the background, mostly claims on their way back."""
        # A claim may have arrived while its reader has not run yet; the reader may give it back.
        while self._background or self._reading:
            if self._background:
                await asyncio.wait(self._background)
            await asyncio.sleep(0)

    def spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run *work* in a task that :meth:`finished` waits for."""
        # The task may outlive its caller, and do work for other callers too. An empty context
        # keeps the caller's variables, such as a tenant or a span, out of it.
        task = asyncio.get_running_loop().create_task(work, context=Context())
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def _wait(self, intakes: list[Intake], grace: float, hurry: asyncio.Event) -> None:
        idle = asyncio.create_task(_idle(intakes))
        hurried = asyncio.create_task(_set(hurry))
        try:
            await asyncio.wait({idle, hurried}, timeout=grace, return_when=asyncio.FIRST_COMPLETED)
            if not idle.done() and not hurried.done():
                log.warning("grace_ended", board=self._board, grace=grace)
        finally:
            idle.cancel()
            hurried.cancel()

    def _return_unread(self, reading: asyncio.Task[ClaimBatch]) -> None:
        if not reading.cancelled() and reading.exception() is None:
            batch = reading.result()
            self.give_back([*batch.claims, *batch.handed])

    async def _settle_quietly(self, settlements: list[Settlement]) -> None:
        """Settle; a failure is logged, and the leases then lapse."""
        try:
            await self._settle(settlements)
        except Exception as error:
            log.warning("give_back_failed", board=self._board, error=str(error))


async def _idle(intakes: Iterable[Intake]) -> None:
    for intake in intakes:
        await intake.idle()


async def _set(event: asyncio.Event) -> None:
    await event.wait()
