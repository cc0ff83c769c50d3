"""``LoopScheduler``: the loop's clock, and the trampoline for actions without a delay."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as rx
from reactivex.disposable import Disposable
from reactivex.scheduler import CurrentThreadScheduler
from reactivex.subject import Subject

from rxdispatch.clock import LoopScheduler, lease_clock_of, valve_of
from rxdispatch.streams import run
from rxdispatch.testing import run_virtual
from rxdispatch.valve import Gate


def test_now_is_the_loops_time() -> None:
    """The scheduler's time advances by the same amounts as the loop's, to the microsecond."""

    async def main() -> list[timedelta]:
        scheduler = LoopScheduler(asyncio.get_running_loop())
        start = scheduler.now
        passed: list[timedelta] = []
        for seconds in (0.1, 0.2, 0.000001, 3600):
            await asyncio.sleep(seconds)
            passed.append(scheduler.now - start)
        return passed

    assert [
        timedelta(seconds=0.1),
        timedelta(seconds=0.3),
        timedelta(seconds=0.300001),
        timedelta(seconds=3600.300001),
    ] == run_virtual(main())


def test_all_schedulers_of_a_loop_agree_on_the_time() -> None:
    """A scheduler that is made later shows the same time."""

    async def main() -> bool:
        loop = asyncio.get_running_loop()
        one = LoopScheduler(loop)
        await asyncio.sleep(5)
        return one.now == LoopScheduler(loop).now

    assert run_virtual(main())


def test_now_is_an_aware_time_near_the_wall_clock() -> None:
    """The scheduler's time can be compared with other aware times."""

    async def main() -> float:
        scheduler = LoopScheduler(asyncio.get_running_loop())
        return abs((scheduler.now - CurrentThreadScheduler().now).total_seconds())

    assert run_virtual(main()) < 5


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (rx.delay(2.5), [(2.5, 0), (3.5, 1), (4.5, 2)]),
        (rx.debounce(0.25), [(0.25, 0), (1.25, 1), (2.0, 2)]),
        (rx.throttle_first(1.5), [(0.0, 0), (2.0, 2)]),
        (rx.take_with_time(1.5), [(0.0, 0), (1.0, 1)]),
    ],
)
def test_operators_of_time_are_exact(
    operator: Callable[[Observable[int]], Observable[int]], expected: list[tuple[float, int]]
) -> None:
    """RxPY's operators take their time from the scheduler of the subscription."""

    async def main() -> list[tuple[float, int]]:
        loop = asyncio.get_running_loop()
        seen: list[tuple[float, int]] = []
        source: Subject[int] = Subject()
        source.pipe(operator).subscribe(
            lambda n: seen.append((round(loop.time(), 6), n)), scheduler=LoopScheduler(loop)
        )
        for n in range(3):
            source.on_next(n)
            if n < 2:
                await asyncio.sleep(1)
        source.on_completed()
        await asyncio.sleep(10)
        return seen

    assert expected == run_virtual(main())


def test_an_interval_does_not_drift() -> None:
    """The thousandth tick comes at the thousandth second."""

    async def main() -> float:
        loop = asyncio.get_running_loop()
        await run(reactivex.interval(1.0).pipe(rx.take(1000)))
        return round(loop.time(), 3)

    assert run_virtual(main()) == 1000.0


def test_an_interval_of_nothing_leaves_the_loop_its_turns() -> None:
    """An interval of 0 s lets the loop run; on the trampoline it would block it forever."""

    async def main() -> int:
        count = 0

        def on_next(_: int) -> None:
            nonlocal count
            count += 1

        scheduler = LoopScheduler(asyncio.get_running_loop())
        subscription = reactivex.interval(0).subscribe(on_next, scheduler=scheduler)
        for _ in range(20):
            await asyncio.sleep(0)
        subscription.dispose()
        seen = count
        await asyncio.sleep(1)
        return seen if count == seen else -1

    assert 1 <= run_virtual(main()) <= 20


def test_a_timed_action_can_be_cancelled() -> None:
    """Disposal cancels an action, whether it is due later or now."""

    async def main() -> list[str]:
        scheduler = LoopScheduler(asyncio.get_running_loop())
        seen: list[str] = []

        def never(*_: Any) -> None:
            seen.append("never")

        def in_time(*_: Any) -> None:
            seen.append("in time")

        for after in (0, 1):
            scheduler.schedule_relative(after, never).dispose()
        at = scheduler.now + timedelta(seconds=2)
        scheduler.schedule_absolute(at, in_time)
        await asyncio.sleep(5)
        return seen

    assert ["in time"] == run_virtual(main())


def test_an_undelayed_action_runs_at_once_and_is_handed_the_scheduler() -> None:
    """The action gets the scheduler, so that what it schedules goes through the same one."""

    async def main() -> bool:
        scheduler = LoopScheduler(asyncio.get_running_loop())
        handed: list[object] = []
        scheduler.schedule(lambda given, _: handed.append(given))
        return handed == [scheduler]

    assert run_virtual(main())


FORMS: dict[str, Callable[[Observable[int]], Observable[int]]] = {
    "start_with": lambda source: source.pipe(rx.start_with(0)),
    "retry": lambda source: source.pipe(rx.retry(2)),
    "merge": lambda source: source.pipe(rx.merge(reactivex.never())),
    "merge_all": lambda source: reactivex.of(source).pipe(rx.merge_all()),
    "concat": lambda source: reactivex.of(0).pipe(rx.concat(source)),
    "concat_with_iterable": lambda source: reactivex.concat_with_iterable([source]),
    "catch": lambda source: source.pipe(rx.catch(reactivex.never())),
    "repeat": lambda source: source.pipe(rx.repeat(2)),
}


@pytest.mark.parametrize("form", FORMS)
def test_the_first_item_of_a_hot_source_is_not_lost(form: str) -> None:
    """The operator subscribes to the source before ``subscribe`` returns."""

    async def main() -> list[int]:
        source: Subject[int] = Subject()
        seen: list[int] = []
        FORMS[form](source).subscribe(
            seen.append, scheduler=LoopScheduler(asyncio.get_running_loop())
        )
        source.on_next(1)
        source.on_next(2)
        return [n for n in seen if n]

    assert [1, 2] == run_virtual(main())


def _last(_: Any, item: Any) -> Any:
    return item


CARRIERS: dict[str, Callable[[Observable[Any]], Observable[Any]]] = {
    **FORMS,
    "map": lambda source: source.pipe(rx.map(str)),
    "filter": lambda source: source.pipe(rx.filter(bool)),
    "scan": lambda source: source.pipe(rx.scan(_last, 0)),
    "flat_map": lambda source: source.pipe(rx.flat_map(reactivex.of)),
    "inner of flat_map": lambda source: reactivex.of(1).pipe(rx.flat_map(lambda _: source)),
    "switch_latest": lambda source: reactivex.of(source).pipe(rx.switch_latest()),
    "take": lambda source: source.pipe(rx.take(5)),
    "take_until": lambda source: source.pipe(rx.take_until(reactivex.never())),
    "do_action": lambda source: source.pipe(rx.do_action(print)),
    "distinct": lambda source: source.pipe(rx.distinct()),
    "delay_subscription": lambda source: source.pipe(rx.delay_subscription(0)),
    "timestamp": lambda source: source.pipe(rx.timestamp()),
    "buffer_with_count": lambda source: source.pipe(rx.buffer_with_count(2)),
    "share": lambda source: source.pipe(rx.share()),
    "defer": lambda source: reactivex.defer(lambda _: source),
    "using": lambda source: reactivex.using(Disposable, lambda _: source),
}


@pytest.mark.parametrize("form", CARRIERS)
def test_the_valve_is_seen_through(form: str) -> None:
    """A source finds the valve of its subscriber through RxPY's operators."""

    async def main() -> bool:
        gate = Gate(lambda: 1, None)
        found: list[object] = []

        def subscribe(_: Any, scheduler: Any = None) -> Any:
            found.append(valve_of(scheduler))
            return Disposable()

        scheduler = LoopScheduler(asyncio.get_running_loop(), valve=gate)
        subscription = CARRIERS[form](Observable[Any](subscribe)).subscribe(scheduler=scheduler)
        await asyncio.sleep(1)
        subscription.dispose()
        return found == [gate]

    assert run_virtual(main())


def test_subscribe_on_cuts_demand() -> None:
    """A known limit: ``subscribe_on`` passes on its own scheduler instead of the subscriber's."""

    async def main() -> list[object]:
        loop = asyncio.get_running_loop()
        found: list[object] = []

        def subscribe(_: Any, scheduler: Any = None) -> Any:
            found.append(valve_of(scheduler))
            return Disposable()

        Observable[Any](subscribe).pipe(rx.subscribe_on(LoopScheduler(loop))).subscribe(
            scheduler=LoopScheduler(loop, valve=Gate(lambda: 1, None))
        )
        await asyncio.sleep(1)
        return found

    assert [None] == run_virtual(main())


def test_other_schedulers_carry_no_valve() -> None:
    """Other schedulers have no valve; without a scheduler there is none either."""
    assert [None, None] == [valve_of(None), valve_of(CurrentThreadScheduler.singleton())]


def test_leases_count_the_time_of_a_suspended_host() -> None:
    """On asyncio's loops the lease clock counts suspension; on others it is the loop's clock."""

    async def here() -> float:
        return lease_clock_of(asyncio.get_running_loop())()

    if hasattr(time, "CLOCK_BOOTTIME"):
        before = time.clock_gettime(time.CLOCK_BOOTTIME)
        told = asyncio.run(here())
        assert before <= told <= time.clock_gettime(time.CLOCK_BOOTTIME)

    async def virtual() -> bool:
        loop = asyncio.get_running_loop()
        return lease_clock_of(loop)() == loop.time()

    assert run_virtual(virtual())
