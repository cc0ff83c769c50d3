"""Failed items that go through the pipeline again."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.stages.resubmits import ResubmitIngress
from rxdispatch.testing import VirtualTimeLoop


@pytest.fixture(autouse=True)
def loop_factory() -> type[VirtualTimeLoop]:
    """Run every test in virtual time."""
    return VirtualTimeLoop


def twice(failure: rxd.StageError) -> float | None:
    """Resubmit an item once, at once."""
    return 0.0 if failure.round < 2 else None


def outage(tried: Counter[int], *, tries: int = 1) -> Any:
    """Return a function whose first *tries* attempts at each item fail."""

    async def work(n: int) -> int:
        tried[n] += 1
        await asyncio.sleep(0.001)
        if tried[n] <= tries:
            raise OSError("outage")
        return n

    return work


@pytest.mark.parametrize("bound", [1, 4, 16])
async def test_all_come_out_although_each_failed_once(bound: int) -> None:
    """There is no deadlock, and leaving waits for the last item."""
    tried, done = Counter[int](), list[int]()
    stage = rxd.stage(outage(tried), max_concurrent=4, queue_size=bound)
    async with rxd.Pipeline(stage, resubmit=twice) as p:
        p.results.subscribe(done.append)
        async with asyncio.timeout(100):
            await p.feed(range(400))
    assert (list(range(400)), {2}) == (sorted(done), {*tried.values()})
    assert (400, 400) == (p.stats.submitted, p.stats.results)


async def test_an_item_that_failed_too_often_is_a_failure() -> None:
    """The failure has its round; slow readers hold up new items, but not resubmitted ones."""
    tried, failed = Counter[int](), list[tuple[int, int]]()
    stages = (rxd.stage(str), rxd.stage(int), rxd.stage(outage(tried, tries=9), queue_size=2))
    async with rxd.Pipeline(*stages, resubmit=twice) as p:

        async def read() -> None:
            async for failure in rxd.to_async_iterable(p.failures, size=4):
                failed.append((failure.item, failure.round))
                await asyncio.sleep(0.01)

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        await p.feed(range(100))
    await reading
    assert [(n, 2) for n in range(100)] == sorted(failed)
    assert {2} == {*tried.values()}


async def test_it_waits_as_long_as_the_rule_says() -> None:
    """``drain`` waits too; if the rule raises, the failure is final."""
    tried, loop = Counter[int](), asyncio.get_running_loop()
    times: list[float] = []

    def rule(failure: rxd.StageError) -> float | None:
        if failure.item == 1:
            raise ValueError("bug")
        return 30.0

    failed: list[int] = []
    with capture_logs() as logs:
        async with rxd.Pipeline(rxd.stage(outage(tried)), resubmit=rule) as p:
            p.results.subscribe(lambda _: times.append(loop.time()))
            p.failures.subscribe(lambda failure: failed.append(failure.item))
            await p.submit(0)
            await p.submit(1)
    assert [1] == failed
    assert [30.002] == [round(when, 3) for when in times]
    assert ["resubmit_failed"] == [entry["event"] for entry in logs]


async def test_a_cancelled_pipeline_forgets_waiting_items() -> None:
    """No timer remains."""
    p = rxd.Pipeline(rxd.stage(outage(Counter())), resubmit=lambda _: 1000.0)
    async with p:
        await p.submit(1)
        await asyncio.sleep(1)
        assert not await p.drain(timeout=5)
    assert p._resubmits is not None
    assert ({}, {}) == (p._resubmits._inside, p._resubmits._timers)


async def test_a_returned_item_does_not_widen_the_bound() -> None:
    """The place of a resubmitted item is not passed on, however many producers wait."""
    ingress = ResubmitIngress(2)
    waiting = [asyncio.create_task(ingress.put(Envelope(str(n), n))) for n in range(20)]
    await asyncio.sleep(0)
    for n in range(3):
        ingress.give_back(Envelope("again", n))
    assert 5 == ingress.waiting
    most = list[int]()
    ingress.subscribe(lambda _: most.append(ingress.waiting))
    await asyncio.wait(waiting)
    await ingress.wait_empty()
    assert (2, 23) == (ingress._free, len(most))


def test_bad_rules() -> None:
    """Bad rules are refused when the pipeline is made."""
    with pytest.raises(rxd.ConfigError, match="resubmit must take 1 argument"):
        rxd.Pipeline(rxd.stage(str), resubmit=lambda: None)  # type: ignore[misc, arg-type]  # pyright: ignore[reportArgumentType]
    with pytest.raises(rxd.ConfigError, match="if the first stage has a board"):
        rxd.Pipeline(rxd.stage(str, board="b"), resubmit=twice)
