"""``delay_until``: times, order, demand, and the end."""

from __future__ import annotations

import asyncio
import contextvars
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
import reactivex
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._delay_until import delay_until
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.testing import Probe, Supply, VirtualTimeLoop, run_virtual
from rxdispatch.valve import Gate
from tests.operators.flow.runs import to_list


def at(item: Any) -> float:
    """Return the time that an item contains."""
    return float(item["at"])


def itself(item: datetime) -> datetime:
    """Return the item, a datetime."""
    return item


def second(item: tuple[int, int]) -> int:
    """Return the time of a pair."""
    return item[1]


def one_later(item: int) -> float:
    """Return the time of a number."""
    return item + 1.0


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore the error."""


def log_of(stream: reactivex.Observable[Any], seconds: float = 1000) -> list[Any]:
    """Return the log of *stream* after *seconds* seconds."""

    async def main() -> list[Any]:
        log = Probe()
        stream.pipe(delay_until(float)).subscribe(log)
        await asyncio.sleep(seconds)
        return log.timeline

    return run_virtual(main())


def test_items_go_when_they_are_due() -> None:
    """Items are emitted in the order of their times; the completion comes after the last one."""
    assert [(5.0, 5), (7.0, 7), (9.0, 9), (9.0, "|")] == log_of(reactivex.of(9, 5, 7))


def test_what_is_due_already_goes_at_once() -> None:
    """An item that is already due is emitted at once, and so is one that is due now."""
    assert [(0.0, -3), (0.0, 0), (0.0, "|")] == log_of(reactivex.of(-3, 0))


def test_equal_times_keep_the_order_of_arrival() -> None:
    """Items with the same time keep their order, even if they cannot be compared."""

    async def main() -> Any:
        items = [{"n": n, "at": float(n % 2)} for n in range(6)]
        got = await to_list(reactivex.from_iterable(items).pipe(delay_until(at)))
        return [item["n"] for item in got]

    assert [0, 2, 4, 1, 3, 5] == run_virtual(main())


def test_an_item_that_is_due_earlier_overtakes() -> None:
    """The timer is set again for an item that is due earlier."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(delay_until(float)).subscribe(log)
        source.on_next(50)
        await asyncio.sleep(10)
        source.on_next(20)
        source.on_next(30)
        await asyncio.sleep(100)
        return log.timeline

    assert [(20.0, 20), (30.0, 30), (50.0, 50)] == run_virtual(main())


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=-7))])
def test_datetimes_are_those_of_the_scheduler(zone: Any) -> None:
    """A datetime in any zone is exact to the microsecond."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(0.123457)
        now = LoopScheduler(loop).now.astimezone(zone)
        times = [now + timedelta(seconds=1.5), now + timedelta(days=3, microseconds=1)]
        log = Probe()
        times_of: Any = reactivex.from_iterable(times)
        times_of.pipe(delay_until(itself)).subscribe(log)
        await asyncio.sleep(10**6)
        return [when for when, _ in log.timeline[:2]]

    assert [1.623457, pytest.approx(3 * 86400 + 0.123458, abs=1e-9)] == run_virtual(main())


def test_a_blocked_loop_lets_all_go_that_is_due_by_then() -> None:
    """Items that are due come in order, and the others at their time."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        log = Probe()
        reactivex.of(4, 3, 2, 11, 12).pipe(delay_until(float)).subscribe(log)
        await asyncio.sleep(1)
        loop.advance(9)
        await asyncio.sleep(100)
        return log.timeline

    assert [(10.0, 2), (10.0, 3), (10.0, 4), (11.0, 11), (12.0, 12), (12.0, "|")] == (
        run_virtual(main())
    )


# ---------------------------------------------------------------- demand


def test_the_source_is_asked_for_no_more_than_the_size() -> None:
    """The source is asked for another item as soon as one has been emitted."""

    async def main() -> list[Any]:
        paced = Supply([30, 10, 20, 5, 40])
        log = Probe()
        paced.pipe(delay_until(float, size=2)).subscribe(log)
        sent = [paced.sent]
        for _ in range(4):
            await asyncio.sleep(10)
            sent.append(paced.sent)
        return [sent, paced.most_room, log.timeline]

    with capture_logs() as logs:
        assert [
            [2, 3, 5, 5, 5],
            2,
            [(10.0, 10), (20.0, 20), (20.0, 5), (30.0, 30), (40.0, 40), (40.0, "|")],
        ] == run_virtual(main())
    assert [] == logs


def test_a_source_that_cannot_wait_is_kept_and_named_once() -> None:
    """The log names the operator once when more items wait than its size."""
    stream = reactivex.range(10).pipe(delay_until(one_later, size=3))
    with capture_logs() as logs:
        assert list(range(10)) == run_virtual(to_list(stream))
    assert [
        {"event": "no_demand", "operator": "delay_until", "limit": 3, "log_level": "warning"}
    ] == logs


def test_what_is_due_waits_for_room_below() -> None:
    """Items that are due wait for room, and come in the order of their times."""

    async def main() -> list[Any]:
        room = 0
        gate = Gate(lambda: room, None)
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(delay_until(float)).subscribe(
            log, scheduler=LoopScheduler(asyncio.get_running_loop(), valve=gate)
        )
        for n in (3, 1, 2, 20):
            source.on_next(n)
        source.on_completed()
        await asyncio.sleep(10)
        assert log.timeline == []
        room = 1
        gate.opened()
        await asyncio.sleep(100)
        return log.timeline

    assert [(10.0, 1), (10.0, 2), (10.0, 3), (20.0, 20), (20.0, "|")] == run_virtual(main())


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 20)), max_size=25),
    size=st.integers(1, 6),
    width=st.integers(1, 3),
    pace=st.booleans(),
)
def test_nothing_is_lost_and_nothing_goes_early(
    items: list[tuple[int, int]], size: int, width: int, pace: bool
) -> None:
    """Nothing is lost or early above a slow stage, whether or not the source can wait."""

    async def main() -> Any:
        loop = asyncio.get_running_loop()

        async def slow(item: tuple[int, int]) -> tuple[float, tuple[int, int]]:
            began = loop.time()
            await asyncio.sleep(item[0])
            return began, item

        source = Supply(items) if pace else reactivex.from_iterable(items)
        return await to_list(
            source.pipe(delay_until(second, size=size), map_async(slow, max_concurrent=width))
        )

    with capture_logs() as logs:
        got = run_virtual(main())
    assert sorted(items) == sorted(item for _, item in got)
    assert all(began >= item[1] for began, item in got)
    if pace:
        assert [] == logs


# ---------------------------------------------------------------- the end


def test_an_error_passes_at_once_and_tells_what_it_cost() -> None:
    """The held items are dropped and counted in the log."""
    error = OSError("x")
    source = reactivex.concat(reactivex.of(7, 8), reactivex.throw(error))
    with capture_logs() as logs:
        assert [(0.0, error)] == log_of(source)
    assert [("items_dropped", "delay_until", 2)] == [
        (entry["event"], entry["operator"], entry["items"]) for entry in logs
    ]


def test_a_time_that_cannot_be_had_ends_the_stream() -> None:
    """An error of *when*, a naive datetime, or a value that is no time ends the stream."""

    def fails(item: int) -> float:
        raise KeyError(item)

    with pytest.raises(KeyError):
        run_virtual(to_list(reactivex.of(1).pipe(delay_until(fails))))
    rule = "when must return an aware datetime or a finite loop time, got "
    bad: list[Any] = [datetime(2020, 1, 1), float("nan"), "soon", None, True]  # noqa: DTZ001
    for when in bad:

        def returns(_: int, when: Any = when) -> Any:
            return when

        with pytest.raises(ConfigError, match=rule):
            run_virtual(to_list(reactivex.of(1).pipe(delay_until(returns))))


def test_disposal_leaves_no_timer() -> None:
    """Disposal from within ``on_next`` leaves none either."""

    async def main() -> tuple[list[Any], int]:
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(delay_until(float), rx.take(1)).subscribe(log)
        subscription = source.pipe(delay_until(float)).subscribe(log)
        for n in (1, 1, 3):
            source.on_next(n)
        await asyncio.sleep(0.5)
        subscription.dispose()
        await asyncio.sleep(10)
        return log.notifications, len(source.observers)

    assert ([1, "|"], 0) == run_virtual(main())


def test_the_context_of_the_push_goes_with_the_item() -> None:
    """Each item has the context of its push, whichever item the timer was set for."""
    name = contextvars.ContextVar("name", default="none")

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        seen: list[Any] = []
        source.pipe(delay_until(float)).subscribe(lambda item: seen.append((item, name.get())))
        for item in (3, 1, 2):
            context = contextvars.copy_context()
            context.run(name.set, f"push {item}")
            context.run(source.on_next, item)
        await asyncio.sleep(20)
        return seen

    assert [(n, f"push {n}") for n in (1, 2, 3)] == run_virtual(main())


def test_a_subscriber_that_raises_stops_nothing() -> None:
    """The later items are emitted at their time."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_ignore)
        got: list[Any] = []

        def on_next(item: int) -> None:
            got.append((loop.time(), item))
            raise ValueError(item)

        reactivex.of(2, 1, 2).pipe(delay_until(float)).subscribe(
            on_next, on_completed=lambda: got.append("|")
        )
        await asyncio.sleep(10)
        return got

    assert [(1.0, 1), (2.0, 2), (2.0, 2), "|"] == run_virtual(main())


def test_a_bad_argument_is_refused() -> None:
    """A bad argument is refused when the operator is made."""

    async def later(item: int) -> float:
        return item

    bad: Any = 5
    with pytest.raises(ConfigError, match="when must be callable, got 5"):
        delay_until(bad)
    with pytest.raises(ConfigError, match="when must be a plain function"):
        delay_until(later)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="size must be an int >= 1, got 0"):
        delay_until(float, size=0)
