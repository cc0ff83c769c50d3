"""Replies that get lost and connections that are cut, at random, below a pipeline."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import attrs
import pytest

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failures.fleet import Account, eventually, subscribed
from tests.proxy import Proxy
from tests.servers import valkey_server

Trouble = Callable[[Proxy, random.Random], Awaitable[None]]


@attrs.define
class Traffic:
    """
    Submits *count* tasks and runs them, both through a troubled proxy.

    Attributes:
        runs: How often each task's handler was started.
    """

    count: int
    seed: int
    runs: Counter[str] = attrs.field(factory=Counter[str])
    repeated: int = 0

    @property
    def ids(self) -> list[str]:
        return [f"t{i}" for i in range(self.count)]

    async def run(self, trouble: Trouble, settings: rxd.Settings) -> Account:
        rng = random.Random(self.seed)
        async with (
            valkey_server() as server,
            Proxy(server.target) as proxy,
            rxd.connect(server.target.safe) as hub,
        ):
            observed: rxd.Board[Any] = hub.board("b")
            async with subscribed(hub, observed) as account:
                async with rxd.connect(proxy.target.safe, settings=settings) as shaky:
                    board: rxd.Board[Any] = shaky.board("b", remember=60.0)
                    troubling = asyncio.create_task(_for_ever(trouble, proxy, rng))
                    pipeline = asyncio.create_task(self._work(board))
                    await self._submit(board)
                    await eventually(lambda: account.finished(self.ids), 40.0)
                    assert not pipeline.done()
                    troubling.cancel()
                    await asyncio.wait({troubling})
                    proxy.heal()
                    pipeline.cancel()
                    await asyncio.wait({pipeline})
                assert (0, 0, 0, self.count, 0) == attrs.astuple(await observed.counts())
                assert proxy.dropped or proxy.accepted > 4
        return account

    async def _submit(self, board: rxd.Board[Any]) -> None:
        for start in range(0, self.count, 10):
            ids = tuple(self.ids[start : start + 10])
            while True:
                try:
                    result = await board.submit([rxd.Task(0, id=i) for i in ids])
                except rxd.StoreUnavailableError:
                    self.repeated += 1
                else:
                    break
            assert set(ids) == {*result.accepted, *result.duplicates}
            if not self.repeated:
                # The server answers repeated requests as the first time, so nothing is a
                # duplicate.
                assert ids == result.accepted
            await asyncio.sleep(0.01)

    async def _work(self, board: rxd.Board[Any]) -> None:
        rng = random.Random(-self.seed)

        async def handler(task: rxd.Task[int]) -> None:
            self.runs[task.id] += 1
            await asyncio.sleep(rng.uniform(0.0, 0.05))

        await rxd.run(
            board.claims(prefetch=24, lease=10.0).pipe(
                ops.execute(handler, max_concurrent=8), ops.settle(board)
            )
        )


async def _for_ever(trouble: Trouble, proxy: Proxy, rng: random.Random) -> None:
    while True:
        await trouble(proxy, rng)


async def lose_or_cut(proxy: Proxy, rng: random.Random) -> None:
    """Drop replies for a moment, or cut all connections."""
    if rng.random() < 0.7:
        proxy.drop_replies(rng.randint(1, 3), b"EVALSHA")
    else:
        proxy.cut()
    await asyncio.sleep(rng.uniform(0.005, 0.02))
    # End it soon, or each repeated request would meet the next trouble.
    proxy.heal()
    await asyncio.sleep(rng.uniform(0.01, 0.04))


async def outage(proxy: Proxy, rng: random.Random) -> None:
    """Delay replies or hold requests for longer than a call is repeated."""
    if rng.random() < 0.5:
        proxy.delay(rng.uniform(0.6, 1.2))
    else:
        proxy.blackhole()
    await asyncio.sleep(rng.uniform(0.4, 1.0))
    proxy.heal()
    await asyncio.sleep(rng.uniform(0.2, 0.6))


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_lost_replies_and_cuts_repeat_and_lose_nothing(seed: int) -> None:
    """Each task has one ``done`` and one run, and no crash."""
    traffic = Traffic(500, seed)
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=5.0, attempt_timeout=0.4))
    account = await traffic.run(lose_or_cut, settings)
    assert account.settled_once(traffic.ids)
    assert Counter(traffic.ids) == account.count("done") == traffic.runs
    assert not account.count("dead", "crashed", "retried")
    assert 0 == traffic.repeated


@pytest.mark.parametrize("seed", [4, 5])
async def test_calls_that_were_given_up_repeat_and_lose_nothing(seed: int) -> None:
    """Nothing is lost even if a call is executed after its caller gave up."""
    traffic = Traffic(200, seed)
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=0.5, attempt_timeout=0.2))
    account = await traffic.run(outage, settings)
    assert account.settled_once(traffic.ids)
    assert Counter(traffic.ids) == account.count("done") == traffic.runs
    assert not account.count("dead", "crashed", "retried")
    assert traffic.repeated
