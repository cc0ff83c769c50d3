"""``timeout_idle`` and ``deadline``: limits of time for a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as rx
from reactivex.disposable import Disposable
from reactivex.subject import Subject

from rxdispatch.clock import LoopScheduler, valve_of
from rxdispatch.errors import ConfigError, ItemTimeoutError
from rxdispatch.operators.flow._deadline import deadline
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._timeout_idle import timeout_idle
from rxdispatch.streams import run
from rxdispatch.testing import Supply, run_virtual
from rxdispatch.valve import Gate

Operator = Callable[[Observable[Any]], Observable[Any]]
BOTH = pytest.mark.parametrize("make", [timeout_idle, deadline])


def timed(operator: Operator, pushes: list[tuple[float, Any]]) -> tuple[list[Any], int]:
    """Push each item at its time; return the log and the number of remaining listeners."""

    async def main() -> tuple[list[Any], int]:
        loop = asyncio.get_running_loop()
        source: Subject[Any] = Subject()
        got: list[Any] = []
        source.pipe(operator).subscribe(
            lambda item: got.append((loop.time(), item)),
            lambda error: got.append((loop.time(), error)),
            lambda: got.append((loop.time(), "|")),
        )
        for when, item in pushes:
            await asyncio.sleep(when - loop.time())
            if item == "|":
                source.on_completed()
            elif isinstance(item, Exception):
                source.on_error(item)
            else:
                source.on_next(item)
        await asyncio.sleep(1000)
        return got, len(source.observers)

    return run_virtual(main())


def test_a_gap_that_is_too_long_ends_the_stream() -> None:
    """The stream ends with an error, and the source is disposed."""
    pushes = [(3.0, 1), (7.0, 2), (7.5, 3), (20.0, 4)]
    got, listening = timed(timeout_idle(5), pushes)
    assert [(3.0, 1), (7.0, 2), (7.5, 3)] == got[:3]
    assert (12.5, 0, 4) == (got[3][0], listening, len(got))
    error = got[3][1]
    assert isinstance(error, ItemTimeoutError)
    assert isinstance(error, TimeoutError)
    assert (5.0, None) == (error.seconds, error.item)


def test_the_first_gap_begins_with_the_subscription() -> None:
    """A source that never emits is noticed too."""
    got, _ = timed(timeout_idle(timedelta(seconds=5)), [(20.0, 1)])
    assert [5.0] == [when for when, _ in got]


def test_the_deadline_is_for_the_stream_as_a_whole() -> None:
    """The number of items does not matter."""
    got, listening = timed(deadline(5), [(float(n), n) for n in range(1, 9)])
    assert [(1.0, 1), (2.0, 2), (3.0, 3), (4.0, 4)] == got[:4]
    assert (5.0, "ItemTimeoutError", 0) == (got[-1][0], type(got[-1][1]).__name__, listening)


@BOTH
def test_what_ends_in_time_is_left_alone(make: Callable[[float], Operator]) -> None:
    """Completion and errors pass through, and no timer is left."""
    error = OSError("x")
    assert ([(1.0, 1), (2.0, "|")], 0) == timed(make(5), [(1.0, 1), (2.0, "|")])
    assert ([(1.0, 1), (2.0, error)], 0) == timed(make(5), [(1.0, 1), (2.0, error)])


@BOTH
def test_disposal_leaves_no_timer(make: Callable[[float], Operator]) -> None:
    """Disposal from within ``on_next`` leaves none either."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        got: list[Any] = []
        source.pipe(make(5)).subscribe(got.append, got.append).dispose()
        source.pipe(make(5), rx.take(1)).subscribe(got.append, got.append)
        source.on_next(1)
        await asyncio.sleep(20)
        return [*got, len(source.observers)]

    assert [1, 0] == run_virtual(main())


@BOTH
def test_one_instance_serves_many_subscriptions(make: Callable[[float], Operator]) -> None:
    """Each subscription has its own time."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        stream = reactivex.never().pipe(make(5))
        ended: list[float] = []
        stream.subscribe(on_error=lambda _: ended.append(loop.time()))
        await asyncio.sleep(2)
        stream.subscribe(on_error=lambda _: ended.append(loop.time()))
        await asyncio.sleep(20)
        return ended

    assert [5.0, 7.0] == run_virtual(main())


@BOTH
def test_a_source_that_ends_at_once(make: Callable[[float], Operator]) -> None:
    """The source may end while it is being subscribed to."""
    assert run_virtual(run(reactivex.of(1, 2).pipe(make(5)))) == 2
    with pytest.raises(OSError, match="x"):
        run_virtual(run(reactivex.throw(OSError("x")).pipe(make(5))))


@BOTH
def test_demand_passes_through(make: Callable[[float], Operator]) -> None:
    """The source sees the valve of the subscriber."""

    async def main() -> bool:
        gate = Gate(lambda: 1, None)
        found: list[Any] = []

        def subscribe(_: Any, scheduler: Any = None) -> Any:
            found.append(valve_of(scheduler))
            return Disposable()

        scheduler = LoopScheduler(asyncio.get_running_loop(), valve=gate)
        Observable[Any](subscribe).pipe(make(5)).subscribe(scheduler=scheduler).dispose()
        return found == [gate]

    assert run_virtual(main())


def test_no_gap_counts_while_the_consumer_has_no_room() -> None:
    """A source that waits for room is not idle."""

    async def main() -> tuple[int | None, float]:
        stream = Supply(range(6))

        async def slow(item: int) -> int:
            await asyncio.sleep(60)
            return item

        last = await run(stream.pipe(timeout_idle(5), map_async(slow, max_concurrent=2)))
        return last, asyncio.get_running_loop().time()

    assert (5, 180.0) == run_virtual(main())


def test_the_gap_begins_when_the_consumer_makes_room() -> None:
    """From then on, the source is expected to emit."""

    async def main() -> float:
        async def slow(item: int) -> int:
            await asyncio.sleep(60)
            return item

        source: Subject[int] = Subject()
        stream = source.pipe(timeout_idle(7), map_async(slow, max_concurrent=1))
        running = asyncio.ensure_future(run(stream))
        await asyncio.sleep(1)
        source.on_next(1)
        with pytest.raises(ItemTimeoutError):
            await running
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 68.0


def test_there_is_no_timer_for_each_item() -> None:
    """The timer looks at the stream now and then, however many items come."""

    async def main() -> int:
        loop = asyncio.get_running_loop()
        timers = 0
        call_at = loop.call_at

        def counted(*args: Any, **options: Any) -> asyncio.TimerHandle:
            nonlocal timers
            timers += 1
            return call_at(*args, **options)

        loop.call_at = counted  # type: ignore[method-assign,assignment]
        source: Subject[int] = Subject()
        subscription = source.pipe(timeout_idle(5)).subscribe()
        for n in range(10_000):
            source.on_next(n)
        subscription.dispose()
        return timers

    assert run_virtual(main()) == 1


@BOTH
@pytest.mark.parametrize("seconds", [0, -1, float("nan"), float("inf"), None, True])
def test_a_bad_argument_is_refused(make: Callable[[Any], Operator], seconds: Any) -> None:
    """A bad argument is refused when the operator is made."""
    with pytest.raises(ConfigError, match="seconds must be a finite number of seconds > 0"):
        make(seconds)
