"""``batch``: size, age, the end, and demand."""

from __future__ import annotations

import asyncio
from datetime import timedelta
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
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.streams import run
from rxdispatch.testing import Probe, Supply, run_virtual
from rxdispatch.valve import Gate
from tests.operators.flow.runs import to_list


def timed(
    pushes: list[tuple[float, Any]], count: int, timespan: float, **options: Any
) -> list[Any]:
    """Push each item at its time into ``batch``; "|" completes and an error fails."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        source: Subject[Any] = Subject()
        log = Probe()
        source.pipe(batch(count, timespan, **options)).subscribe(log)
        for when, item in pushes:
            if when > loop.time():
                await asyncio.sleep(when - loop.time())
            if item == "|":
                source.on_completed()
            elif isinstance(item, Exception):
                source.on_error(item)
            else:
                source.on_next(item)
        await asyncio.sleep(1000)
        return log.timeline

    return run_virtual(main())


# ---------------------------------------------------------------- size and age


def test_full_lists_go_at_once() -> None:
    """The last items go before the completion."""
    pushes = [(0.0, n) for n in range(7)] + [(1.0, "|")]
    assert [(0.0, [0, 1, 2]), (0.0, [3, 4, 5]), (1.0, [6]), (1.0, "|")] == timed(pushes, 3, 5)


def test_a_list_goes_when_its_first_item_is_old_enough() -> None:
    """The time runs from the first item of a list, not from the previous list."""
    pushes = [(1.0, 1), (2.0, 2), (9.0, 3), (99.0, "|")]
    assert [(6.0, [1, 2]), (14.0, [3]), (99.0, "|")] == timed(pushes, 10, 5)


def test_a_full_list_takes_its_timer_along() -> None:
    """The next list has its full time, however often this happens."""
    pushes = [(0.0, 1), (1.0, 2), (4.0, 3), (4.5, 4), (4.9, 5), (99.0, "|")]
    assert [(1.0, [1, 2]), (4.5, [3, 4]), (9.9, [5]), (99.0, "|")] == timed(pushes, 2, 5)


def test_a_list_is_never_empty() -> None:
    """No list is empty, neither while idle nor at the end."""
    assert [(99.0, "|")] == timed([(99.0, "|")], 3, 5)
    assert [(0.0, [1, 2]), (99.0, "|")] == timed([(0.0, 1), (0.0, 2), (99.0, "|")], 2, 5)
    error = OSError("x")
    assert [(9.0, error)] == timed([(9.0, error)], 3, 5)


def test_lists_of_one() -> None:
    """Each item goes at once, in a list of its own."""
    pushes = [(0.0, 1), (2.0, 2), (2.0, 3), (9.0, "|")]
    assert [(0.0, [1]), (2.0, [2]), (2.0, [3]), (9.0, "|")] == timed(pushes, 1, 5)


def test_a_huge_size_and_a_long_time() -> None:
    """Nothing is allocated for items that may never come."""
    pushes = [(0.0, 1), (9.0, "|")]
    assert [(9.0, [1]), (9.0, "|")] == timed(pushes, 10**18, 1e300)


def test_the_age_may_be_a_timedelta() -> None:
    """The age is a duration like any other."""
    span: Any = timedelta(seconds=5)
    assert [(5.0, [1]), (9.0, "|")] == timed([(0.0, 1), (9.0, "|")], 3, span)


# ---------------------------------------------------------------- errors


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore the error."""


def test_an_error_comes_after_what_is_left() -> None:
    """By default, the remaining items come before the error."""
    error = OSError("x")
    assert [(0.0, [1, 2]), (1.0, [3]), (1.0, error)] == timed(
        [(0.0, 1), (0.0, 2), (0.0, 3), (1.0, error)], 2, 5
    )


def test_an_error_may_drop_what_is_left() -> None:
    """The log then has the number of dropped items."""
    error = OSError("x")
    with capture_logs() as logs:
        assert [(1.0, error)] == timed([(0.0, 1), (0.0, 2), (1.0, error)], 3, 5, on_error="drop")
        timed([(1.0, error)], 3, 5, on_error="drop")
    assert [
        {"event": "batch_dropped", "operator": "batch", "items": 2, "log_level": "warning"}
    ] == logs


def test_a_subscriber_that_raises_stops_nothing() -> None:
    """The stream goes on and completes."""

    async def main() -> list[Any]:
        got: list[Any] = []

        def on_next(items: list[int]) -> None:
            got.append(items)
            raise ValueError(items)

        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_ignore)
        source: Subject[int] = Subject()
        source.pipe(batch(2, 1.0)).subscribe(on_next, on_completed=lambda: got.append("|"))
        source.on_next(0)
        with pytest.raises(ValueError, match="0, 1"):
            source.on_next(1)
        source.on_next(2)
        await asyncio.sleep(2)
        source.on_next(3)
        with pytest.raises(ValueError, match="3"):
            source.on_completed()
        await asyncio.sleep(1)
        return got

    assert [[0, 1], [2], [3], "|"] == run_virtual(main())


# ---------------------------------------------------------------- disposal, resubscription


def test_disposal_drops_what_is_left_and_its_timer() -> None:
    """The source is disposed, and nothing more is emitted."""

    async def main() -> tuple[list[Any], int]:
        log = Probe()
        source: Subject[int] = Subject()
        subscription = source.pipe(batch(3, 5)).subscribe(log)
        source.on_next(1)
        subscription.dispose()
        subscription.dispose()
        await asyncio.sleep(20)
        return log.timeline, len(source.observers)

    assert ([], 0) == run_virtual(main())


def test_disposal_from_within_on_next() -> None:
    """``take`` ends the stream while a list is being emitted."""
    stream = reactivex.range(100).pipe(batch(2, 1.0), rx.take(2))
    assert [[0, 1], [2, 3]] == run_virtual(to_list(stream))


def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription has lists of its own."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        stream = source.pipe(batch(2, 5))
        one, two = Probe(), Probe()
        stream.subscribe(one)
        source.on_next(1)
        stream.subscribe(two)
        source.on_next(2)
        source.on_next(3)
        source.on_completed()
        return [one.timeline, two.timeline]

    one = [(0.0, [1, 2]), (0.0, [3]), (0.0, "|")]
    assert [one, [(0.0, [2, 3]), (0.0, "|")]] == run_virtual(main())


def test_a_subscriber_may_push_more_items() -> None:
    """The lists come in order, one after the other."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        got: list[Any] = []

        def on_next(items: list[int]) -> None:
            got.append(("begin", items))
            if items[0] < 4:
                for n in items:
                    source.on_next(n + 2)
            got.append(("end", items))

        source.pipe(batch(2, 5)).subscribe(on_next)
        source.on_next(0)
        source.on_next(1)
        return got

    assert [(what, items) for items in ([0, 1], [2, 3], [4, 5]) for what in ("begin", "end")] == (
        run_virtual(main())
    )


# ---------------------------------------------------------------- demand


def test_without_a_limit_below_the_source_never_waits() -> None:
    """Full lists are emitted at once."""

    async def main() -> Any:
        return await to_list(Supply(range(10)).pipe(batch(4, 1.0)))

    assert [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]] == run_virtual(main())


def test_the_source_is_asked_for_as_many_items_as_fill_the_lists_below() -> None:
    """The valve below counts lists, and the source is asked for items."""

    async def main() -> list[Any]:
        paced = Supply(range(100))
        stream = paced.pipe(batch(5, 1.0), map_async(lambda _: asyncio.sleep(10), max_concurrent=2))
        running = asyncio.ensure_future(run(stream))
        sent: list[int] = []
        for _ in range(3):
            await asyncio.sleep(5)
            sent.append(paced.sent)
            await asyncio.sleep(5)
        await running
        return [sent, paced.most_room, paced.sent]

    with capture_logs() as logs:
        assert [[10, 20, 30], 10, 100] == run_virtual(main())
    assert [] == logs


def test_a_closed_valve_below_holds_lists_and_lets_the_last_one_grow() -> None:
    """The list is due, but is only emitted when there is room."""

    async def main() -> list[Any]:
        room = 0
        gate = Gate(lambda: room, None)
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(batch(3, 5)).subscribe(
            log, scheduler=LoopScheduler(asyncio.get_running_loop(), valve=gate)
        )

        def open_for(lists: int) -> None:
            nonlocal room
            room = lists
            gate.opened()

        source.on_next(1)
        await asyncio.sleep(20)
        for n in (2, 3, 4, 5):
            source.on_next(n)
        assert log.timeline == []
        open_for(1)
        assert log.timeline == [
            (20.0, [1, 2, 3]),
        ]
        room = 0
        source.on_completed()
        await asyncio.sleep(10)
        assert len(log.timeline) == 1
        open_for(1)
        return log.timeline

    with capture_logs() as logs:
        assert [(20.0, [1, 2, 3]), (30.0, [4, 5]), (30.0, "|")] == run_virtual(main())
    assert [{"event": "no_demand", "operator": "batch", "limit": 3, "log_level": "warning"}] == logs


def test_an_error_does_not_wait_for_room() -> None:
    """The held items are emitted before the error, without waiting."""

    async def main() -> list[Any]:
        gate = Gate(lambda: 0, None)
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(batch(2, 5)).subscribe(
            log, scheduler=LoopScheduler(asyncio.get_running_loop(), valve=gate)
        )
        for n in range(3):
            source.on_next(n)
        source.on_error(OSError("x"))
        return [str(item) for _, item in log.timeline]

    with capture_logs():
        assert ["[0, 1]", "[2]", "x"] == run_virtual(main())


# ---------------------------------------------------------------- properties


@settings(max_examples=100, deadline=None)
@given(
    gaps=st.lists(st.integers(0, 4), max_size=40),
    count=st.integers(1, 6),
    timespan=st.integers(1, 6),
    end=st.sampled_from(["|", OSError("x")]),
)
def test_whatever_comes_every_rule_holds(
    gaps: list[int], count: int, timespan: int, end: Any
) -> None:
    """Lists lose nothing, keep the order, and are never empty, too large or too old."""
    now = 0.0
    pushes: list[tuple[float, Any]] = []
    came: dict[int, float] = {}
    for n, gap in enumerate(gaps):
        now += gap + 0.25
        pushes.append((now, n))
        came[n] = now
    pushes.append((now + 0.25, end))
    got = timed(pushes, count, timespan)
    assert got[-1] == (now + 0.25, end)
    lists = got[:-1]
    assert list(range(len(gaps))) == [n for _, items in lists for n in items]
    for when, items in lists:
        assert 1 <= len(items) <= count
        full = came[items[-1]] if len(items) == count else now + 1e9
        assert when == min(came[items[0]] + timespan, full, now + 0.25)


@settings(max_examples=50, deadline=None)
@given(
    total=st.integers(0, 60),
    count=st.integers(1, 7),
    width=st.integers(1, 3),
    pace=st.booleans(),
)
def test_a_slow_stage_below_loses_nothing(total: int, count: int, width: int, pace: bool) -> None:
    """Nothing is lost above a slow stage, whether or not the source can wait."""

    async def slow(items: list[int]) -> list[int]:
        await asyncio.sleep(len(items))
        return items

    async def main() -> Any:
        source = Supply(range(total)) if pace else reactivex.range(total)
        operator = map_async(slow, max_concurrent=width, ordered=True)
        return await to_list(source.pipe(batch(count, 0.5), operator))

    with capture_logs() as logs:
        lists = run_virtual(main())
    assert list(range(total)) == [n for items in lists for n in items]
    assert all(1 <= len(items) <= count for items in lists)
    if pace:
        assert [] == logs


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, 1.0), "count must be an int >= 1, got 0"),
        ((2.0, 1.0), "count must be an int >= 1, got 2.0"),
        ((True, 1.0), "count must be an int >= 1, got True"),
        ((1, 0), "timespan must be a finite number of seconds > 0, got 0"),
        ((1, float("nan")), "timespan must be a finite number of seconds > 0, got nan"),
    ],
)
def test_a_bad_argument_is_refused(arguments: tuple[Any, Any], message: str) -> None:
    """A bad argument is refused when the operator is made."""
    with pytest.raises(ConfigError) as caught:
        batch(*arguments)
    assert message == str(caught.value)


def test_a_bad_policy_is_refused() -> None:
    """Any policy but the two is refused."""
    with pytest.raises(ConfigError, match='on_error must be "flush" or "drop", got \'skip\''):
        batch(1, 1.0, on_error="skip")  # type: ignore[arg-type]
