"""``PriorityIngress`` and ``DelayedIngress``: order, places, the end, and bad arguments."""

from __future__ import annotations

import asyncio
import threading
from datetime import timedelta
from typing import Any

import pytest
from reactivex import operators as rx

from rxdispatch.errors import BufferOverflowError, ConfigError, TaskRejectedError
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.streams._delayed_ingress import DelayedIngress
from rxdispatch.streams._priority_ingress import PriorityIngress
from rxdispatch.streams._run import run
from rxdispatch.testing import Probe, run_virtual
from tests.operators.flow.runs import to_list


def number(n: int) -> int:
    """Return the priority of *n*."""
    return n % 10


async def slow(n: int) -> int:
    """Return the item after a second."""
    await asyncio.sleep(1)
    return n


def test_the_highest_goes_first_and_equals_keep_their_order() -> None:
    """Items are sorted while the subscriber is busy; waiting puts are not."""

    async def main() -> Any:
        ingress = PriorityIngress[int](4, key=number)
        running = asyncio.create_task(to_list(ingress.pipe(map_async(slow, max_concurrent=1))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for n in (0, 5, 15, 9, 1):
            await ingress.put(n)
        puts = [asyncio.create_task(ingress.put(n)) for n in (8, 7)]
        await asyncio.sleep(0)
        assert not ingress.offer(6)
        assert 4 == ingress.waiting
        await asyncio.gather(*puts)
        ingress.close()
        return await running

    assert [0, 9, 8, 7, 5, 15, 1] == run_virtual(main())


async def test_a_priority_that_is_none_changes_nothing() -> None:
    """A key that is None or raises keeps the item out, and its place stays free."""
    keys: list[Any] = ["high", float("nan"), None]
    ingress = PriorityIngress[int](1, key=lambda n: keys[n] if n < 3 else 1 / 0)
    for n in range(3):
        with pytest.raises(ConfigError, match="key must return"):
            ingress.offer(n)
    with pytest.raises(ZeroDivisionError):
        await ingress.put(3)
    assert 0 == ingress.waiting
    keys[0] = 1
    assert ingress.offer(0)


async def test_policies_and_admission_see_the_items() -> None:
    """Neither sees the wrappers."""
    over: list[int] = []
    ingress = PriorityIngress[int](
        1, key=number, overflow=over.append, admit=lambda n: isinstance(n, int) and n < 50
    )
    assert ingress.offer(1)
    assert not ingress.offer(2)
    with pytest.raises(TaskRejectedError):
        ingress.offer(60)
    assert [2] == over
    full = DelayedIngress[int](1, overflow="error")
    full.offer(1, delay=1)
    with pytest.raises(BufferOverflowError):
        await full.put(2)


async def test_other_threads_put_by_priority_too() -> None:
    """Items of other threads are sorted among the others."""
    ingress = PriorityIngress[int](3, key=number)
    ingress.offer(1)
    thread = threading.Thread(target=lambda: [ingress.offer_threadsafe(n) for n in (9, 5)])
    thread.start()
    await asyncio.to_thread(thread.join)
    ingress.close()
    assert [9, 5, 1] == await to_list(ingress)


def test_items_go_when_they_are_due() -> None:
    """Items are emitted in the order of their times, which count from the call of put."""

    async def main() -> list[tuple[float, Any]]:
        loop = asyncio.get_running_loop()
        start = loop.time()
        seen: list[tuple[float, Any]] = []
        ingress = DelayedIngress[int](3)
        running = asyncio.create_task(
            run(ingress.pipe(rx.do_action(lambda n: seen.append((loop.time() - start, n)))))
        )
        await asyncio.sleep(0)
        await ingress.put(9, delay=9)
        ingress.offer(5, delay=timedelta(seconds=5))
        await ingress.put(0)
        # The item is due at 7, whenever it got its place.
        ingress.offer(6, delay=6)
        await ingress.put(7, delay=7)
        await ingress.wait_empty()
        seen.append((loop.time() - start, -1))
        ingress.offer(10, delay=1)
        ingress.close()
        await running
        return seen

    expected = [(0.0, 0), (5.0, 5), (6.0, 6), (7.0, 7), (9.0, 9), (9.0, -1), (10.0, 10)]
    assert expected == run_virtual(main())


def test_what_is_due_waits_for_a_subscriber_and_for_room() -> None:
    """A subscriber that leaves takes its timer along; the next one goes on."""

    async def main() -> Any:
        ingress = DelayedIngress[int](5)
        for n in (3, 1, 2):
            ingress.offer(n, delay=n)
        await asyncio.sleep(1.5)
        log = Probe()
        subscription = ingress.subscribe(log)
        await asyncio.sleep(0)
        assert [1] == log.notifications
        subscription.dispose()
        await asyncio.sleep(5)
        assert 2 == ingress.waiting
        ingress.close()
        return await to_list(ingress.pipe(map_async(slow, max_concurrent=1)))

    assert [2, 3] == run_virtual(main())


async def test_a_thread_needs_to_know_the_clock() -> None:
    """The clock is known once the ingress is used on a loop."""
    ingress = DelayedIngress[int](2)
    with pytest.raises(ConfigError, match="in use on a loop"):
        await asyncio.to_thread(ingress.offer_threadsafe, 1)
    ingress.offer(0)
    assert await asyncio.to_thread(ingress.offer_threadsafe, 1, delay=0)
    ingress.close()
    assert [0, 1] == await to_list(ingress)


def test_waiting_puts_end_with_the_close() -> None:
    """Cancelled puts give their place to the next."""

    async def main() -> Any:
        ingress = DelayedIngress[int](1)
        ingress.offer(1, delay=1)
        gone, next_one = (asyncio.create_task(ingress.put(n)) for n in (2, 3))
        await asyncio.sleep(0)
        gone.cancel()
        running = asyncio.create_task(to_list(ingress))
        await next_one
        late = [asyncio.create_task(ingress.put(n, delay=1)) for n in (4, 5)]
        await asyncio.sleep(0)
        ingress.close()
        answers = await asyncio.gather(*late, return_exceptions=True)
        assert isinstance(answers[1], TaskRejectedError)
        return await running

    assert [1, 3, 4] == run_virtual(main())


BAD: list[Any] = [slow, "n"]


@pytest.mark.parametrize(
    "make",
    [
        lambda: PriorityIngress[int](0, key=number),
        lambda: PriorityIngress[int](1, key=BAD[0]),
        lambda: PriorityIngress[int](1, key=BAD[1]),
        lambda: PriorityIngress[int](1, key=number, overflow="drop_oldest"),
        lambda: DelayedIngress[int](1, overflow="drop_oldest"),
        lambda: DelayedIngress[int](1).offer_threadsafe(1, delay=-1),
    ],
)
def test_bad_arguments(make: Any) -> None:
    """The error states the rule."""
    with pytest.raises(ConfigError):
        make()
