"""``Handed``: confirms what was handed over, before its handlers start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, Final

from rxdispatch.claim import Claim
from rxdispatch.clock import clock_of, lease_clock_of
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.intakes import DELIVERY_LEASE, WorkerInbox
from rxdispatch.log import get_logger
from rxdispatch.operators.tasks._claim_buffer import ClaimBuffer
from rxdispatch.operators.tasks._quick_kinds import quick_kinds_of
from rxdispatch.protocols import BoardLike

__all__ = ["CONFIRM_WITHIN", "Handed"]

log = get_logger(__name__)

CONFIRM_WITHIN: Final = DELIVERY_LEASE / 3
"""Seconds after which a task that was handed over is confirmed even if its kind is quick."""


class Handed:
    """
    Confirms what was handed over, and then lets the buffer emit it.

    Until the board hears of it, a task that was handed over goes to another worker soon. So the
    confirmation is on its way before the handler starts. If the task is old already, the answer is
    awaited. If tasks of its kind end quickly, their settlement is the confirmation.

    Args:
        board: The board.
        inbox: Where to confirm.
        buffer: Holds and emits the claims.
        on_released: Called when the buffer may emit some.
    """

    def __init__(
        self,
        board: BoardLike,
        inbox: WorkerInbox,
        buffer: ClaimBuffer,
        on_released: Callable[[], None],
    ) -> None:
        self._board = board
        self._inbox = inbox
        self._buffer = buffer
        self._on_released = on_released
        self._home = copy_context()
        loop = asyncio.get_running_loop()
        self._clock = lease_clock_of(loop)
        self._quick = quick_kinds_of(board, DELIVERY_LEASE / 10, clock_of(loop))

    def add(self, claims: list[Claim[Any]], age: float) -> None:
        """Take *claims* that were handed over *age* seconds ago."""
        if not claims:
            return
        buffer = self._buffer
        buffer.hold(claims, CONFIRM_WITHIN)
        quick = age <= DELIVERY_LEASE / 2 and self._quick.quick(claims)
        self._quick.watch(claims)
        if quick:
            self._release(claims)
        else:
            # Not within the task: one that is cancelled before it begins runs no part of it. Others
            # get these tasks when the board has not heard of them in time.
            self._board._intakes.spawn(
                self._confirm(claims, self._clock() - age)
            ).add_done_callback(lambda _: buffer.drop(claims))

    def _release(self, claims: list[Claim[Any]]) -> None:
        # What a message or a reply has called runs in no subscriber's context.
        self._home.copy().run(self._emit, claims)

    def _emit(self, claims: list[Claim[Any]]) -> None:
        self._buffer.release(claims)
        self._on_released()

    async def _confirm(self, claims: list[Claim[Any]], handed_at: float) -> None:
        released = False

        def release() -> None:
            nonlocal released
            if not released:
                released = True
                self._release(claims)

        def on_written() -> None:
            # If it is old by now, the board says first whether the claims still hold.
            if self._clock() - handed_at <= DELIVERY_LEASE / 2:
                release()

        try:
            await self._inbox.confirm(claims, on_written)
            release()  # what is lost is not emitted
        except StoreUnavailableError as error:
            log.warning("confirmation_failed", board=self._board.name, error=str(error))
