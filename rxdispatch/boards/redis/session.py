"""``RequestSession``: numbers the requests of a handle, so that each is executed only once."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from rxdispatch.boards.redis.keys import BoardKeys
from rxdispatch.claim import Claim, Settlement
from rxdispatch.store.client import Client
from rxdispatch.store.scripts import load_script

__all__ = ["Request", "RequestSession"]

KEPT: Final = 60.0
"""Seconds for which a repeated settlement asks for the answer of the one that was given up."""

FRESH: Final = 30.0
"""Seconds between renewals of the session on the server, which keeps it for six times as long."""

_RECALL: Final = load_script("rxdispatch.boards.redis", "recall")


class Request(NamedTuple):
    """A request that the server must not execute twice; the server keeps its reply in a slot."""

    slot: int
    number: int
    renew: bool

    @property
    def args(self) -> tuple[int, int, bytes]:
        """What the script gets."""
        return self.slot, self.number, b"1" if self.renew else b""


class _Doubt(NamedTuple):
    """A settlement that was given up, with its place in the reply of its request."""

    request: Request
    position: int
    verdict: str
    until: float


class RequestSession:
    """
    The requests of one handle, and the answers of settlements that it gave up.

    INVARIANT. A slot is free, belongs to one running request, or to one that was given up and may
    still be asked about. A request that uses a slot again has a higher number, and the server
    executes no request with a lower number than the slot has: one that arrives late does nothing.
    """

    def __init__(self, client: Client, keys: BoardKeys) -> None:
        self._client = client
        self.key = keys.key(f"session:{os.urandom(9).hex()}")
        self._number = 0
        self._slots = 0
        self._free: list[int] = []
        self._renewed = -FRESH
        self._doubts: dict[int, _Doubt] = {}

    def begin(self) -> Request:
        """Return a new request."""
        if self._free:
            slot = self._free.pop()
        else:
            slot, self._slots = self._slots, self._slots + 1
        self._number += 1
        now = time.monotonic()
        return Request(slot, self._number, now - self._renewed >= FRESH)

    def end(self, request: Request) -> None:
        """Let later requests use the slot of *request*, whose reply nobody needs any more."""
        self._free.append(request.slot)

    def answered(self, request: Request) -> None:
        """The server has executed *request*, and so renewed the session if it was to."""
        if request.renew:
            self._renewed = time.monotonic()

    # -- settlements that were given up ------------------------------------------------------

    def doubt(
        self, request: Request, order: Sequence[Claim[Any]], settlements: Sequence[Settlement]
    ) -> None:
        """Remember that *request* may have settled the claims of *order*."""
        verdicts = {s.claim.token: s.verdict for s in settlements}
        until = time.monotonic() + KEPT
        before = self._in_doubt()
        for position, claim in enumerate(order):
            token = claim.token
            self._doubts[token] = _Doubt(request, position, verdicts[token], until)
        self._free_since(before)

    async def recall(self, settlements: Sequence[Settlement]) -> dict[int, bool]:
        """Return, by token, the answers of requests that were given up and settled these."""
        if not self._doubts:
            return {}
        self._forget()
        replies: dict[int, bytes] = {}
        known: dict[int, bool] = {}
        for settlement in settlements:
            doubt = self._doubts.get(settlement.claim.token)
            if doubt is None:
                continue
            number = doubt.request.number
            if number not in replies:
                replies[number] = await self._reply_to(doubt.request)
            bit = replies[number][doubt.position : doubt.position + 1]
            if bit:
                known[settlement.claim.token] = bit == b"1" and doubt.verdict == settlement.verdict
        return known

    def _in_doubt(self) -> set[Request]:
        return {doubt.request for doubt in self._doubts.values()}

    def _free_since(self, before: set[Request]) -> None:
        """Free the slots of requests that were in doubt *before* and are not any more."""
        for request in before - self._in_doubt():
            self.end(request)

    def _forget(self) -> None:
        """Forget the doubts that are older than a minute."""
        now = time.monotonic()
        before = self._in_doubt()
        self._doubts = {t: doubt for t, doubt in self._doubts.items() if doubt.until > now}
        self._free_since(before)

    async def _reply_to(self, request: Request) -> bytes:
        """Return the reply to a given-up request; empty if it is not and never will be executed."""
        reply: bytes | None = None
        with suppress(ResponseError):
            reply = await self._client.run(
                "settle", _RECALL, (self.key,), (request.slot, request.number)
            )
        return reply or b""
