"""The slots of a handle's session: each has at most one request that may still be asked about."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from random import Random
from typing import Any, Final, TypeVar

import pytest

from rxdispatch.boards.base import Board
from rxdispatch.boards.redis.session import RequestSession
from rxdispatch.config import Settings, StoreSettings
from rxdispatch.errors import StoreUnavailableError
from rxdispatch.hub import connect
from rxdispatch.store.url import parse_url
from rxdispatch.task import Task
from tests.boards.places import Place, counts
from tests.proxy import Proxy

HASTY: Final = Settings(store=StoreSettings(timeout=0.2, attempt_timeout=0.05))


T = TypeVar("T")


class Calls:
    """Calls on a board whose server is hard to reach, some of which are cancelled."""

    def __init__(self, board: Board[Any], sure: Board[Any], random: Random) -> None:
        self.board, self.sure, self.random = board, sure, random
        self.submitted = self.done = 0

    async def cancelled(self, call: Coroutine[Any, Any, T], chance: float) -> T | None:
        """Make a call, and cancel it anywhere with a *chance*; None if it was given up."""
        calling = asyncio.create_task(call)
        if self.random.random() < chance:
            for _ in range(self.random.randint(0, 15)):
                await asyncio.sleep(0)
            calling.cancel()
        try:
            return await calling
        except (asyncio.CancelledError, StoreUnavailableError):
            return None

    async def submit(self) -> None:
        self.submitted += 1
        await self.sure.submit(Task(0, id=f"{self.submitted}"))

    async def work(self) -> None:
        """Claim, and settle until there is an answer."""
        claims = await self.cancelled(self.board.claim(3, lease=100.0), 0.2)
        for claim in claims or ():
            end = self.random.choice((claim.done(), claim.done(), claim.release()))
            answer: list[bool] | None = None
            while answer is None:
                answer = await self.cancelled(self.board.settle([end]), 0.5)
            # However often the call was repeated, it settled once.
            assert [True] == answer
            self.done += end.kind == "done"

    async def claim_unread(self) -> None:
        """Claim with the engine, which gives back what was claimed only with its next claim."""
        await self.cancelled(self.board._engine.claim(2, None, None, "w", 100.0), 0.9)


@pytest.mark.parametrize("seed", range(3))
async def test_calls_that_are_given_up_anywhere(server: Place, seed: int) -> None:
    """No slot is lost or used twice, no task is lost, and none is settled twice."""
    random = Random(seed)
    async with (
        server.bench() as bench,
        Proxy(parse_url(server.url)) as proxy,
        connect(proxy.target.safe, settings=HASTY) as hub,
    ):
        board: Board[Any] = hub.board(bench.name)
        calls = Calls(board, bench.board(), random)
        for _ in range(12):
            if random.random() < 0.5:
                proxy.drop_replies(random.randint(1, 6), b"EVALSHA")
            kinds = random.choices((calls.submit, calls.work, calls.claim_unread), (3, 5, 3), k=20)
            await asyncio.gather(*(call() for call in kinds))
            await board._intakes.finished()
        engine: Any = board._engine
        await engine.claim(0, None, None, "w", 100.0)
        assert [] == engine._abandoned
        session: RequestSession = engine._session
        slots = [*session._free, *{request.slot for request in session._in_doubt()}]
        assert list(range(session._slots)) == sorted(slots)
        # What was claimed unread and without a cancellation lapses.
        await bench.later(200)
        while claims := await calls.sure.claim(100):
            calls.done += sum(await calls.sure.settle([claim.done() for claim in claims]))
        assert (0, 0, 0, calls.submitted, 0) == await counts(calls.sure)
        assert calls.submitted == calls.done
