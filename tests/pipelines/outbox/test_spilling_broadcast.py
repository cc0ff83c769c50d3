"""``BroadcastIngress``: many subscribers, each with a queue of its own."""

from __future__ import annotations

import asyncio

import pytest

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.testing import Probe, run_virtual
from tests.operators.flow.runs import to_list


async def slow(n: int) -> int:
    """Return the item after a second."""
    await asyncio.sleep(1)
    return n


def test_all_get_everything_and_wait_empty_waits_for_the_slowest() -> None:
    """The slowest holds up the producer, and its queue stays bounded."""

    async def main() -> None:
        ingress = rxd.BroadcastIngress[int](2)
        quick = Probe()
        ingress.subscribe(quick)
        running = asyncio.create_task(to_list(ingress.pipe(ops.map_async(slow, max_concurrent=1))))
        await asyncio.sleep(0.1)
        loop = asyncio.get_running_loop()
        start = loop.time()
        for n in range(8):
            await ingress.put(n)
        # One item is in progress, two are in its queue, two in front of all; three had to wait.
        assert 2 < loop.time() - start < 4
        await ingress.wait_empty()
        # The last item is still in progress.
        assert 6.5 < loop.time() - start < 7.5
        assert list(range(8)) == quick.notifications
        ingress.close()
        assert list(range(8)) == await running

    run_virtual(main())


def test_a_slow_subscriber_drops_its_own_items() -> None:
    """With an overflow policy, a slow subscriber holds up no other."""

    async def main() -> None:
        ingress = rxd.BroadcastIngress[int](2, overflow="drop_oldest")
        quick = Probe()
        ingress.subscribe(quick)
        running = asyncio.create_task(to_list(ingress.pipe(ops.map_async(slow, max_concurrent=1))))
        await asyncio.sleep(0.1)
        for n in range(8):
            await ingress.put(n)
        ingress.close()
        assert [*range(8), "|"] == quick.notifications
        assert [0, 6, 7] == await running

    run_virtual(main())


async def test_a_subscriber_that_leaves_is_not_waited_for() -> None:
    """A subscriber that has left holds up nobody; items wait for the first subscriber."""
    ingress = rxd.BroadcastIngress[int](1)
    assert ingress.offer(0)
    assert not ingress.offer(1)
    joining = asyncio.create_task(ingress.wait_empty())
    await asyncio.sleep(0)
    assert not joining.done()
    blocked = ingress.pipe(ops.map_async(slow, max_concurrent=1)).subscribe()
    await asyncio.sleep(0)
    await joining
    for n in (1, 2):
        await ingress.put(n)
    assert not ingress.offer(3)
    joining = asyncio.create_task(ingress.wait_empty())
    await asyncio.sleep(0)
    assert not joining.done()
    log = Probe()
    ingress.subscribe(log)
    blocked.dispose()
    await joining
    assert [2] == log.notifications
    ingress.close()
    assert [2, "|"] == log.notifications
    assert [] == await to_list(ingress)


async def test_a_subscriber_that_raises_harms_no_other() -> None:
    """The subscriber gets its error, and ``wait_empty`` does not wait for it."""
    ingress = rxd.BroadcastIngress[int](3)
    good, errors = Probe(), list[Exception]()

    def bad(n: int) -> None:
        raise ValueError(n)

    ingress.subscribe(bad, errors.append)
    ingress.subscribe(good)
    await ingress.put(1)
    await ingress.put(2)
    await ingress.wait_empty()
    assert [1, 2] == good.notifications
    assert ["1"] == [str(error) for error in errors]


def test_bad_arguments() -> None:
    """The arguments follow the rules of an ingress."""
    with pytest.raises(rxd.ConfigError):
        rxd.BroadcastIngress[int](0)
