"""
The edge cases that other systems had bugs in, one test each.

Each docstring states the rule that mature systems follow, with the issue in which one of them
fixed it. The tests of each operator go further.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.backoff import Backoff
from rxdispatch.errors import ConfigError, ItemTimeoutError
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.operators.flow._conflate import conflate
from rxdispatch.operators.flow._in_flight import KeyQueues
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._rate_limit import rate_limit
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.streams import KillSwitch, run
from rxdispatch.testing import Probe, Supply, cold, expect, no_leaks, run_virtual

both_orders = pytest.mark.parametrize("ordered", [False, True])


async def take_time(item: float) -> float:
    """Sleep as many seconds as the item says."""
    await asyncio.sleep(item)
    return item


async def a_second(item: Any) -> Any:
    """Sleep for a second."""
    await asyncio.sleep(1)
    return item


async def fail(item: Any) -> Any:
    """Fail after a second."""
    await asyncio.sleep(1)
    raise ValueError(item)


def checked(main: Callable[[], Any]) -> Any:
    """Run on virtual time, and check that nothing is left over."""

    async def clean() -> Any:
        async with no_leaks():
            return await main()

    return run_virtual(clean())


# ---------------------------------------------------------------- bounded async map


@both_orders
def test_map_the_mapper_is_called_only_when_a_slot_is_free(ordered: bool) -> None:
    """Bounded async map: the mapper is called only when a slot is free."""

    async def main() -> list[int]:
        called: list[int] = []

        def fn(item: int) -> Any:
            called.append(item)
            return a_second(item)

        source: Subject[int] = Subject()
        probe = Probe().watch(source.pipe(map_async(fn, max_concurrent=2, ordered=ordered)))
        for n in range(5):
            source.on_next(n)
        counts = [len(called)]
        for _ in range(2):
            await asyncio.sleep(1.5)
            counts.append(len(called))
        source.on_completed()
        await probe.wait()
        return counts

    with capture_logs():
        assert [2, 4, 5] == checked(main)


def test_map_finished_but_unemitted_results_count_against_the_limit() -> None:
    """Bounded async map: in ordered mode finished items count until they are emitted."""

    async def main() -> list[int]:
        supply = Supply([9.0, 1.0, 1.0, 1.0, 1.0])
        probe = Probe().watch(supply.pipe(map_async(take_time, max_concurrent=3, ordered=True)))
        await asyncio.sleep(5)
        sent = [supply.sent]
        await probe.wait()
        return [*sent, supply.sent]

    assert [3, 5] == checked(main)


@both_orders
def test_map_completion_waits_for_work_in_flight(ordered: bool) -> None:
    """Bounded async map: completion waits for work in flight."""

    async def main() -> None:
        await expect(cold("a-b|").pipe(map_async(a_second, ordered=ordered)), "-a-(b,|)")

    checked(main)


@both_orders
def test_map_an_error_cancels_work_in_flight(ordered: bool) -> None:
    """Bounded async map: an error of the source cancels the items at work."""
    cancelled: list[Any] = []

    async def fn(item: Any) -> Any:
        try:
            await asyncio.sleep(100)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    async def main() -> None:
        await expect(cold("ab-c-#").pipe(map_async(fn, ordered=ordered)), "-----#")

    checked(main)
    assert ["ab", "c"] == cancelled


def test_map_disposal_cancels_work_in_flight() -> None:
    """Bounded async map: disposal cancels the items at work."""

    async def main() -> None:
        await expect(cold("a-b-c").pipe(map_async(lambda _: asyncio.sleep(100))), "------")

    checked(main)


@both_orders
@pytest.mark.parametrize("end", ["|", "#"])
def test_map_one_terminal_event_when_error_races_completion(ordered: bool, end: str) -> None:
    """Bounded async map: one terminal event even when an error races the completion."""

    async def main() -> int:
        # Both items fail at the same instant at which the source ends.
        probe = Probe().watch(cold(f"(1,2){end}", tick=0.2).pipe(map_async(fail, ordered=ordered)))
        await asyncio.sleep(5)
        return probe.ends

    with capture_logs():
        assert 1 == checked(main)


@both_orders
def test_map_more_skipped_failures_than_slots_do_not_hang(ordered: bool) -> None:
    """Bounded async map: more skipped failures than slots must not hang (akka-core#17407)."""

    async def fn(item: int) -> Any:
        return await (a_second(item) if item == 99 else fail(item))

    async def main() -> Any:
        operator = map_async(fn, max_concurrent=2, on_error="skip", ordered=ordered)
        return await run(Supply(range(100)).pipe(operator))

    with capture_logs():
        assert 99 == checked(main)


@both_orders
def test_map_trailing_skipped_failures_still_complete(ordered: bool) -> None:
    """Bounded async map: trailing skipped failures still complete (pekko#3009)."""

    async def fn(item: int) -> Any:
        return await (fail(item) if item > 1 else a_second(item))

    async def main() -> Any:
        operator = map_async(fn, max_concurrent=3, on_error="skip", ordered=ordered)
        probe = Probe().watch(Supply(range(9)).pipe(operator))
        await probe.wait()
        return probe.items

    with capture_logs():
        assert [0, 1] == checked(main)


def test_map_skipped_failures_are_reported() -> None:
    """Bounded async map: skipped failures are reported, never swallowed (pekko#3103)."""

    async def main() -> None:
        await run(Supply(range(5)).pipe(map_async(fail, on_error="skip")))

    with capture_logs() as logs:
        checked(main)
    assert [1, 2, 3, 4, 5] == [entry["skipped"] for entry in logs]
    assert all(entry["error"].startswith("ValueError") for entry in logs)


def test_map_keeps_the_order_of_a_key() -> None:
    """Bounded async map: first in, first out per key (pekko#2905)."""

    async def main() -> None:
        dice = random.Random(7)
        items = [(dice.randrange(5), n) for n in range(300)]
        waits = {item: dice.random() for item in items}
        fails = {item for item in items if dice.random() < 0.2}
        began: list[tuple[int, int]] = []

        async def fn(item: tuple[int, int]) -> tuple[int, int]:
            began.append(item)
            await asyncio.sleep(waits[item])
            if item in fails:
                raise ValueError(item)
            return item

        operator = map_async(fn, key=_first, max_concurrent=3, on_error="skip")
        got = await run(Supply(items).pipe(operator, rx.to_list()))
        for key in range(5):
            mine = [item for item in items if item[0] == key]
            assert mine == [item for item in began if item[0] == key]
            assert [i for i in mine if i not in fails] == [i for i in got or () if i[0] == key]

    with capture_logs():
        checked(main)


def _first(item: tuple[int, int]) -> int:
    return item[0]


# ---------------------------------------------------------------- size-or-time batch


def test_batch_its_timer_starts_at_the_first_item() -> None:
    """Size-or-time batch: the timer starts at the first item, not at the previous list."""

    async def main() -> None:
        await expect(cold("----a--------|").pipe(batch(9, 3.0)), "-------x-----|", {"x": ["a"]})

    checked(main)


def test_batch_is_never_empty() -> None:
    """Size-or-time batch: never empty, neither when idle nor at the end."""

    async def main() -> None:
        await expect(cold("-----------|").pipe(batch(9, 3.0)), "-----------|")
        lists = {"x": ["a", "b"]}
        await expect(cold("(a,b)-----------|").pipe(batch(2, 3.0)), "x---------------|", lists)

    checked(main)


def test_batch_a_size_flush_cancels_the_timer() -> None:
    """Size-or-time batch: a flush by size cancels the timer."""

    async def main() -> None:
        source: Subject[int] = Subject()
        subscription = source.pipe(batch(2, 3.0)).subscribe()
        for n in range(4):
            source.on_next(n)
        subscription.dispose()

    checked(main)


def test_batch_flushes_before_completion() -> None:
    """Size-or-time batch: the last items come before the completion."""

    async def main() -> None:
        await expect(cold("a-b|").pipe(batch(9, 30.0)), "---(x,|)", {"x": ["a", "b"]})

    checked(main)


def test_batch_does_not_overflow_under_slow_demand() -> None:
    """Size-or-time batch: slow demand is no overflow (reactor#1557, #2236, #3012)."""

    async def main() -> list[Any]:
        supply = Supply(range(100))
        probe = Probe(room=0).watch(supply.pipe(batch(4, 1.0)))
        for _ in range(10):
            await asyncio.sleep(5)
            probe.open(1)
        held = supply.sent - sum(len(items) for items in probe.items)
        probe.open()
        return [probe.unasked, held <= 4, [n for items in probe.items for n in items]]

    with capture_logs() as logs:
        assert [0, True, list(range(100))] == checked(main)
    assert [] == logs


def test_batch_a_stale_timer_flushes_nothing_early() -> None:
    """Size-or-time batch: a stale timer must not flush the next list early (reactor#4377)."""

    async def main() -> None:
        # The timer of the first list is due at 3, that of the second at 5.
        await expect(
            cold("a-(b,c)--------|").pipe(batch(2, 3.0)),
            "--x--y---------|",
            {"x": ["a", "b"], "y": ["c"]},
        )

    checked(main)


def test_batch_does_not_hang_at_a_huge_size() -> None:
    """Size-or-time batch: a huge size is simply never reached (reactor#4185)."""

    async def main() -> Any:
        return await run(Supply(range(5)).pipe(batch(2**62, 1e12)))

    assert list(range(5)) == checked(main)


# ---------------------------------------------------------------- overflow and conflation


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_overflow_every_dropped_item_is_counted_and_reported(overflow: Any) -> None:
    """Overflow: every dropped item is counted and reported."""

    async def main() -> int:
        stream = reactivex.range(100).pipe(
            buffer_bounded(5, overflow), map_async(a_second, max_concurrent=1)
        )
        probe = Probe().watch(stream)
        await probe.wait()
        return len(probe.items)

    with capture_logs() as logs:
        delivered = checked(main)
    dropped = sum(entry["items"] for entry in logs if entry["event"] == "items_dropped")
    assert (6, 94) == (delivered, dropped)


def test_conflation_every_dropped_item_is_counted_and_reported() -> None:
    """Conflation: every item that is replaced is counted and reported."""

    async def main() -> Any:
        stream = reactivex.range(100).pipe(conflate(), map_async(a_second, max_concurrent=1))
        return await run(stream.pipe(rx.to_list()))

    with capture_logs() as logs:
        assert [0, 99] == checked(main)
    assert 98 == sum(entry["items"] for entry in logs if entry["event"] == "items_dropped")


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest", "wait"])
@pytest.mark.parametrize("end", [None, OSError("x")])
def test_overflow_terminal_events_are_never_dropped(overflow: Any, end: Exception | None) -> None:
    """Overflow: terminal events are never dropped, however full the buffer."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        probe = Probe(room=0).watch(source.pipe(buffer_bounded(1, overflow)))
        for n in range(5):
            source.on_next(n)
        if end is None:
            source.on_completed()
            probe.open()
        else:
            source.on_error(end)
        return [probe.ends, probe.error]

    with capture_logs():
        assert [1, end] == checked(main)


def test_overflow_completion_delivers_what_is_buffered() -> None:
    """Overflow: completion delivers the buffered items first."""

    async def main() -> list[Any]:
        probe = Probe(room=0).watch(reactivex.range(4).pipe(buffer_bounded(9)))
        early = probe.completed
        probe.open()
        return [early, probe.items, probe.completed]

    assert [False, [0, 1, 2, 3], True] == checked(main)


# ---------------------------------------------------------------- retry with backoff


def test_retry_the_delay_grows_up_to_its_maximum() -> None:
    """Retry: delay = min(maximum, first * factor ** n)."""
    backoff = Backoff(first=1.0, factor=3.0, maximum=20.0, jitter=0.0)
    assert [1.0, 3.0, 9.0, 20.0, 20.0] == [backoff.delay(n) for n in range(1, 6)]


def test_retry_jitter_never_exceeds_the_maximum() -> None:
    """Retry: jitter is clamped, so that no wait exceeds the maximum (Pekko's does)."""
    backoff = Backoff(first=1.0, maximum=4.0, jitter=1.0, rng=random.Random(5))
    waits = [backoff.delay(n) for n in range(1, 2000)]
    assert 3.9 < max(waits) <= 4.0


def test_retry_huge_attempt_numbers_do_not_overflow() -> None:
    """Retry: huge attempt numbers must not overflow."""
    assert 32.0 == Backoff(jitter=0.0).delay(10**9)


def test_retry_counts_tries_in_a_row() -> None:
    """Retry: the count is documented: tries, including the first one."""
    tries = 0

    def source(_: Any) -> reactivex.Observable[int]:
        nonlocal tries
        tries += 1
        return reactivex.throw(OSError("x"))

    async def main() -> None:
        with pytest.raises(OSError, match="x"):
            await run(reactivex.defer(source).pipe(retry_backoff(Backoff(attempts=4))))

    checked(main)
    assert 4 == tries


def test_retry_the_counter_resets_after_success() -> None:
    """Retry: the counter resets after a value."""

    async def main() -> Any:
        source = reactivex.concat(reactivex.of(1), reactivex.throw(OSError("x")))
        stream = source.pipe(retry_backoff(Backoff(1.0, jitter=0.0, attempts=2)), rx.take(10))
        await run(stream)
        return asyncio.get_running_loop().time()

    assert 9.0 == checked(main)


def test_retry_cancellation_is_never_retried() -> None:
    """Retry: a CancelledError passes at once, whatever ``retry_on`` is."""
    error: Any = asyncio.CancelledError()

    # ``throw`` would turn the error into an Exception.
    def cancelled(observer: Any, _: Any = None) -> Any:
        observer.on_error(error)

    async def main() -> Any:
        stream: reactivex.Observable[int] = reactivex.create(cancelled)
        return Probe().watch(stream.pipe(retry_backoff(retry_on=BaseException))).error

    assert error is checked(main)


def test_retry_disposal_during_the_wait_cancels_the_timer() -> None:
    """Retry: disposal during the wait cancels the timer."""

    async def main() -> None:
        subscription = reactivex.throw(OSError("x")).pipe(retry_backoff()).subscribe()
        await asyncio.sleep(0.5)
        subscription.dispose()

    checked(main)


def test_retry_the_cause_is_chained() -> None:
    """Retry: the last error carries the errors before it."""
    errors = iter([OSError("first"), KeyError("second"), ValueError("third")])

    async def main() -> None:
        with pytest.raises(ValueError, match="third") as caught:
            await run(
                reactivex.defer(lambda _: reactivex.throw(next(errors))).pipe(
                    retry_backoff(Backoff(attempts=3))
                )
            )
        before = caught.value.__context__
        assert isinstance(before, KeyError)
        assert isinstance(before.__context__, OSError)

    checked(main)


# ---------------------------------------------------------------- time-outs


def test_timeout_cancels_that_item_and_leaves_the_siblings_alone() -> None:
    """Timeout: a per-item limit cancels that item's coroutine alone, and carries the item."""
    cancelled: list[float] = []

    async def fn(item: float) -> float:
        try:
            return await take_time(item)
        except asyncio.CancelledError:
            cancelled.append(item)
            raise

    def told(item: float, error: BaseException) -> Any:
        assert isinstance(error, TimeoutError)
        assert isinstance(error, ItemTimeoutError)
        return ("late", error.item, error.seconds)

    async def main() -> Any:
        operator = map_async(fn, timeout=2.0, on_error=told)
        return await run(Supply([1.0, 5.0, 1.5]).pipe(operator, rx.to_list()))

    assert [1.0, 1.5, ("late", 5.0, 2.0)] == checked(main)
    assert [5.0] == cancelled


def test_timeout_a_handlers_own_stays_distinguishable() -> None:
    """Timeout: a handler's own TimeoutError is passed on unchanged."""
    own = TimeoutError("of the database")

    async def fn(item: int) -> int:
        raise own

    async def main() -> Any:
        probe = Probe().watch(reactivex.of(1).pipe(map_async(fn, timeout=2.0)))
        await probe.wait()
        return probe.error

    assert own is checked(main)


# ---------------------------------------------------------------- rate limit


def test_rate_a_burst_after_idle_is_that_of_the_bucket() -> None:
    """Rate limit: a burst after idle time is documented: the bucket, and no more."""

    async def times() -> list[float]:
        probe = Probe().watch(cold("---------(1,2,3,4,5)").pipe(rate_limit(1, burst=3)))
        await probe.wait(5)
        probe.dispose()
        return probe.times

    assert [9.0, 9.0, 9.0, 10.0, 11.0] == checked(times)


def test_rate_no_item_can_cost_more_than_the_burst() -> None:
    """Rate limit: an item costs one token, and a bucket holds at least one."""
    with pytest.raises(ConfigError, match="burst must be an int >= 1 or None, got 0"):
        rate_limit(5, burst=0)


# ---------------------------------------------------------------- drain


def test_drain_stops_the_source_finishes_and_flushes() -> None:
    """Drain: stop the source, finish items in flight, flush buffers; idempotent."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        supply = Supply(range(1000))
        probe = Probe().watch(
            supply.pipe(switch.gate(), map_async(a_second, max_concurrent=3), batch(100, 1000.0))
        )
        await asyncio.sleep(2.5)
        both = await asyncio.gather(switch.drain(), switch.drain(5.0))
        again = await switch.drain(0.0)
        lists = [sorted(items) for items in probe.items]
        return [both, again, lists, probe.completed, supply.sent]

    assert [[True, True], True, [[0, 1, 2, 3, 4, 5, 6, 7, 8]], True, 9] == checked(main)


def test_drain_cancels_the_rest_when_its_time_is_up() -> None:
    """Drain: when the time is up, the remaining work is cancelled."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        probe = Probe().watch(Supply([1.0, 50.0]).pipe(switch.gate(), map_async(take_time)))
        drained = await switch.drain(5.0)
        return [drained, probe.items, type(probe.error), asyncio.get_running_loop().time()]

    assert [False, [1.0], ItemTimeoutError, 5.0] == checked(main)


# ---------------------------------------------------------------- groups


def test_groups_may_outnumber_the_slots_and_idle_ones_go() -> None:
    """Groups: more of them than slots neither leak nor hang (reactor#596, #931, #2138)."""

    async def main() -> Any:
        operator = map_async(a_second, key=_itself, max_concurrent=2)
        return await run(Supply(range(500)).pipe(operator, rx.count()))

    assert 500 == checked(main)


def test_groups_that_are_idle_are_evicted() -> None:
    """Groups: a key is forgotten after its last item."""
    queues = KeyQueues()
    flights: list[Any] = [object.__new__(_Flight) for _ in range(3)]
    assert [True, False, True] == [
        queues.acquire(key, flight) for key, flight in zip("aab", flights, strict=True)
    ]
    assert (2, 1) == (len(queues), queues.waiting)
    assert flights[1] is queues.release("a")
    assert queues.release("a") is None
    assert queues.release("b") is None
    assert (0, 0) == (len(queues), queues.waiting)


class _Flight:
    """An object with a key."""

    key: Any = None


def _itself(item: int) -> int:
    return item
