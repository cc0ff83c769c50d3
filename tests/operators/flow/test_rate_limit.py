"""``rate_limit``: the bucket, blocked loops, demand, and the end."""

from __future__ import annotations

import asyncio
import contextvars
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
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._rate_limit import rate_limit
from rxdispatch.streams import run
from rxdispatch.testing import Probe, Supply, VirtualTimeLoop, run_virtual
from rxdispatch.valve import Gate
from tests.operators.flow.runs import to_list


def timed(pushes: list[tuple[float, Any]], *args: Any, **options: Any) -> list[Any]:
    """Push each item at its time into ``rate_limit``; "|" completes and an error fails."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        source: Subject[Any] = Subject()
        log = Probe()
        source.pipe(rate_limit(*args, **options)).subscribe(log)
        for when, item in pushes:
            if when > loop.time():
                await asyncio.sleep(when - loop.time())
            if item == "|":
                source.on_completed()
            elif isinstance(item, Exception):
                source.on_error(item)
            else:
                source.on_next(item)
        await asyncio.sleep(100_000)
        return log.timeline

    with capture_logs():
        return run_virtual(main())


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore the error."""


def at_once(count: int) -> list[tuple[float, Any]]:
    """Push *count* items at time 0."""
    return [(0.0, n) for n in range(count)]


def block(seconds: float) -> None:
    """Let time pass while the loop is blocked."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualTimeLoop)
    loop.advance(seconds)


# ---------------------------------------------------------------- the bucket


def test_a_full_bucket_lets_its_burst_go_and_then_one_by_one() -> None:
    """By default the bucket holds *count* tokens."""
    assert [(0.0, 0), (0.0, 1), (1.5, 2), (3.0, 3), (4.5, 4)] == timed(at_once(5), 2, 3)
    assert [(0.0, 0), (1.5, 1), (3.0, 2), (4.5, 3)] == timed(at_once(4), 2, 3, burst=1)
    assert [(0.0, n) for n in range(5)] == timed(at_once(5), 2, 3, burst=5)


def test_after_a_pause_the_burst_goes_at_once() -> None:
    """No more than the burst comes at once, however long the pause is."""
    pushes = [*at_once(2), *((1000.0, n) for n in (2, 3, 4, 5))]
    expected = [(0.0, 0), (0.0, 1), (1000.0, 2), (1000.0, 3), (1001.0, 4), (1002.0, 5)]
    assert expected == timed(pushes, 1, burst=2)


def test_tokens_come_while_items_go() -> None:
    """A bucket that is half full allows half of its burst."""
    pushes = [*at_once(4), (2.0, 4), (2.0, 5), (2.0, 6)]
    expected = [*((0.0, n) for n in range(4)), (2.0, 4), (2.0, 5), (3.0, 6)]
    assert expected == timed(pushes, 1, burst=4)


def test_what_is_slower_than_the_rate_is_not_touched() -> None:
    """Each item is emitted when it comes."""
    pushes = [(n * 1.25, n) for n in range(20)]
    assert pushes == timed(pushes, 1, burst=1)


@pytest.mark.parametrize("burst", [1, 2, 7])
def test_errors_of_rounding_do_not_add_up(burst: int) -> None:
    """Item n is emitted at n tenths of a second, exactly."""

    async def main() -> list[float]:
        log = Probe()
        Supply(range(10_000)).pipe(rate_limit(10, burst=burst)).subscribe(log)
        await asyncio.sleep(2000)
        return [when for when, _ in log.timeline[burst - 1 : -1]]

    assert [n / 10 for n in range(10_001 - burst)] == run_virtual(main())


def test_the_span_may_be_a_timedelta() -> None:
    """The span is a duration like any other."""
    assert [(0.0, 0), (60.0, 1)] == timed(at_once(2), 1, timedelta(minutes=1))


# ---------------------------------------------------------------- a loop that was blocked


def test_a_blocked_loop_leads_to_no_more_than_a_burst() -> None:
    """More tokens are lost, and then the operator continues by the clock."""

    async def main() -> list[Any]:
        log = Probe()
        reactivex.range(9).pipe(rate_limit(1, burst=2)).subscribe(log)
        await asyncio.sleep(1.5)
        block(10.0)
        await asyncio.sleep(100)
        return log.timeline

    with capture_logs():
        times = [when for when, _ in run_virtual(main())]
    assert [0.0, 0.0, 1.0, 11.5, 11.5, 12.5, 13.5, 14.5, 15.5, 15.5] == times


def test_a_short_block_does_not_slow_down_the_rate() -> None:
    """The bucket makes up for the delay, up to its size."""

    async def main() -> list[Any]:
        log = Probe()
        reactivex.range(7).pipe(rate_limit(1, burst=3)).subscribe(log)
        await asyncio.sleep(0.5)
        block(1.75)
        await asyncio.sleep(100)
        return log.timeline

    with capture_logs():
        times = [when for when, _ in run_virtual(main())]
    assert [0.0, 0.0, 0.0, 2.25, 2.25, 3.0, 4.0, 4.0] == times


def test_a_subscriber_that_blocks_the_loop_gets_no_more_than_a_burst_after_it() -> None:
    """Tokens count from the time at which an item was really emitted."""

    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        went: list[float] = []

        def on_next(item: int) -> None:
            went.append(loop.time())
            if item == 2:
                block(100.0)

        reactivex.range(12).pipe(rate_limit(1, burst=5)).subscribe(on_next)
        await asyncio.sleep(1000)
        return went

    with capture_logs():
        went = run_virtual(main())
    assert [0.0] * 3 + [100.0] * 5 + [101.0, 102.0, 103.0, 104.0] == went


@settings(max_examples=80, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 6), st.integers(0, 30)), max_size=25
    ),
    count=st.integers(1, 5),
    burst=st.integers(1, 6),
)
def test_no_stretch_of_time_has_more_than_the_bucket_allows(
    steps: list[tuple[int, int, int]], count: int, burst: int
) -> None:
    """The limit holds for any input and any block of the loop, and no item waits needlessly."""
    # Times are in quarters of a second, as rounding is not tested here.
    per = count * 0.5

    async def main() -> tuple[list[float], list[int], list[tuple[float, float]]]:
        loop = asyncio.get_running_loop()
        log = Probe()
        source: Subject[int] = Subject()
        source.pipe(rate_limit(count, per, burst=burst)).subscribe(log)
        blocks: list[tuple[float, float]] = []
        total = 0
        for pause, pushes, blocked in steps:
            await asyncio.sleep(pause / 4)
            for _ in range(pushes):
                source.on_next(total)
                total += 1
            blocks.append((loop.time(), loop.time() + blocked / 4))
            block(blocked / 4)
        await asyncio.sleep(1000)
        assert list(range(total)) == log.notifications
        return [when for when, _ in log.timeline], log.notifications, blocks

    with capture_logs():
        times, _, _ = run_virtual(main())
    for first in range(len(times)):
        for last in range(first, len(times)):
            assert last - first + 1 <= burst + (times[last] - times[first]) / 0.5


# ---------------------------------------------------------------- demand


def test_a_source_that_can_wait_is_asked_for_as_much_as_there_are_tokens() -> None:
    """No item waits in the operator, and nothing is logged."""

    async def main() -> list[Any]:
        paced = Supply(range(100))
        log = Probe()
        paced.pipe(rate_limit(2, burst=4)).subscribe(log)
        sent = [paced.sent]
        for _ in range(3):
            await asyncio.sleep(0.75)
            sent.append(paced.sent)
            assert paced.sent == len(log.timeline)
        return [sent, paced.most_room]

    with capture_logs() as logs:
        assert [[4, 5, 7, 8], 4] == run_virtual(main())
    assert [] == logs


def test_a_source_that_cannot_wait_is_kept_and_named_once() -> None:
    """The log names the operator once when more items than the burst wait."""

    async def main(count: int) -> Any:
        return await to_list(reactivex.range(count).pipe(rate_limit(1, burst=2)))

    with capture_logs() as logs:
        assert [0, 1, 2, 3] == run_virtual(main(4))
        assert [] == logs
        assert list(range(9)) == run_virtual(main(9))
    assert [
        {"event": "no_demand", "operator": "rate_limit", "limit": 2, "log_level": "warning"}
    ] == logs


def test_a_closed_valve_below_holds_everything() -> None:
    """Tokens still accumulate, up to the burst."""

    async def main() -> list[Any]:
        room = 0
        gate = Gate(lambda: room, None)
        paced = Supply(range(10))
        log = Probe()
        paced.pipe(rate_limit(1, burst=3)).subscribe(
            log, scheduler=LoopScheduler(asyncio.get_running_loop(), valve=gate)
        )
        await asyncio.sleep(10)
        assert paced.sent == 0
        room = 1
        gate.opened()
        await asyncio.sleep(1.5)
        return log.timeline

    assert [(10.0, 0), (10.0, 1), (10.0, 2), (11.0, 3)] == run_virtual(main())


def test_a_slow_stage_below_is_not_flooded() -> None:
    """The tighter of the two limits applies."""

    async def main() -> tuple[Any, float]:
        async def slow(item: int) -> int:
            await asyncio.sleep(1)
            return item

        paced = Supply(range(6))
        stream = paced.pipe(rate_limit(100), map_async(slow, max_concurrent=2))
        return await to_list(stream), asyncio.get_running_loop().time()

    with capture_logs() as logs:
        assert (list(range(6)), 3.0) == run_virtual(main())
    assert [] == logs


def test_what_is_pushed_without_room_waits_for_room_and_for_a_token() -> None:
    """Items come in order, and the completion after them."""

    async def main() -> list[Any]:
        room = 0
        gate = Gate(lambda: room, None)
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(rate_limit(1, burst=2)).subscribe(
            log, scheduler=LoopScheduler(asyncio.get_running_loop(), valve=gate)
        )
        for n in range(3):
            source.on_next(n)
        source.on_completed()
        await asyncio.sleep(5)
        assert log.timeline == []
        room = 1
        gate.opened()
        await asyncio.sleep(5)
        return log.timeline

    with capture_logs():
        assert [(5.0, 0), (5.0, 1), (6.0, 2), (6.0, "|")] == run_virtual(main())


def test_a_second_source_that_comes_later_is_told_of_tokens() -> None:
    """It learns of new tokens even if the first source, which could not wait, took them all."""

    async def main() -> Any:
        source = reactivex.concat(reactivex.range(2), Supply([2, 3]))
        log = Probe()
        source.pipe(rate_limit(1, burst=2)).subscribe(log)
        await asyncio.sleep(10)
        return log.timeline

    assert [(0.0, 0), (0.0, 1), (1.0, 2), (2.0, 3), (3.0, "|")] == run_virtual(main())


# ---------------------------------------------------------------- the end


def test_completion_waits_for_what_is_held() -> None:
    """Without held items, the completion comes at once."""
    pushes = [*at_once(2), (0.5, "|")]
    assert [(0.0, 0), (1.0, 1), (1.0, "|")] == timed(pushes, 1)
    assert [(0.5, "|")] == timed([(0.5, "|")], 1)


def test_an_error_passes_at_once_and_tells_what_it_cost() -> None:
    """The held items are dropped and counted in the log."""
    error = OSError("x")

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(rate_limit(1)).subscribe(log)
        for n in range(3):
            source.on_next(n)
        source.on_error(error)
        await asyncio.sleep(10)
        return log.timeline

    with capture_logs() as logs:
        assert [(0.0, 0), (0.0, error)] == run_virtual(main())
    assert ("items_dropped", "error", 2) == tuple(
        logs[-1][name] for name in ("event", "reason", "items")
    )


def test_disposal_leaves_no_timer() -> None:
    """No subscription is left either."""

    async def main() -> tuple[list[Any], int]:
        source: Subject[int] = Subject()
        log = Probe()
        subscription = source.pipe(rate_limit(1)).subscribe(log)
        source.on_next(0)
        source.on_next(1)
        subscription.dispose()
        subscription.dispose()
        await asyncio.sleep(10)
        return log.notifications, len(source.observers)

    assert ([0], 0) == run_virtual(main())


def test_disposal_from_within_on_next() -> None:
    """The disposal may happen during a burst."""
    with capture_logs():
        assert [0, 1, 2] == run_virtual(
            to_list(reactivex.range(50).pipe(rate_limit(1, burst=2), rx.take(3)))
        )


def test_a_subscriber_may_push_more_items() -> None:
    """The new items come one after the other, within the same limit."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        log: list[Any] = []

        def on_next(item: int) -> None:
            log.append(("begin", item))
            if item < 3:
                source.on_next(item + 1)
            log.append(("end", item))

        source.pipe(rate_limit(1, burst=2)).subscribe(on_next)
        source.on_next(0)
        await asyncio.sleep(0)
        assert [n for _, n in log] == [0, 0, 1, 1]
        await asyncio.sleep(10)
        return log

    assert [(what, n) for n in range(4) for what in ("begin", "end")] == run_virtual(main())


def test_a_subscriber_that_raises_stops_nothing() -> None:
    """The other items come at their time, and the stream completes."""

    async def main() -> list[Any]:
        got: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_ignore)

        def on_next(item: int) -> None:
            got.append((loop.time(), item))
            raise ValueError(item)

        source: Subject[int] = Subject()
        source.pipe(rate_limit(1, burst=2)).subscribe(on_next, on_completed=lambda: got.append("|"))
        for n in range(4):
            try:
                source.on_next(n)
            except ValueError:
                got.append("raised")
        source.on_completed()
        await asyncio.sleep(10)
        return got

    with capture_logs():
        assert [(0.0, 0), "raised", (0.0, 1), "raised", (1.0, 2), (2.0, 3), "|"] == (
            run_virtual(main())
        )


def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription has a bucket of its own."""

    async def main() -> list[Any]:
        stream = reactivex.range(3).pipe(rate_limit(1, burst=1))
        await run(stream)
        await asyncio.gather(run(stream), run(stream))
        return [asyncio.get_running_loop().time()]

    with capture_logs():
        assert [4.0] == run_virtual(main())


def test_the_context_of_the_push_goes_with_the_item() -> None:
    """An item keeps its context even if it has to wait for a token."""
    name = contextvars.ContextVar("name", default="none")

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        seen: list[Any] = []
        source.pipe(rate_limit(1)).subscribe(lambda item: seen.append((item, name.get())))
        for item in range(3):
            context = contextvars.copy_context()
            context.run(name.set, f"push {item}")
            context.run(source.on_next, item)
        await asyncio.sleep(20)
        return seen

    with capture_logs():
        assert [(n, f"push {n}") for n in range(3)] == run_virtual(main())


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((0,), {}, "count must be an int >= 1, got 0"),
        ((1.5,), {}, "count must be an int >= 1, got 1.5"),
        ((True,), {}, "count must be an int >= 1, got True"),
        ((1, 0), {}, "per must be a finite number of seconds > 0, got 0"),
        ((1, float("inf")), {}, "per must be a finite number of seconds > 0, got inf"),
        ((1,), {"burst": 0}, "burst must be an int >= 1 or None, got 0"),
        ((1,), {"burst": 2.0}, "burst must be an int >= 1 or None, got 2.0"),
    ],
)
def test_a_bad_argument_is_refused(
    arguments: tuple[Any, ...], options: dict[str, Any], message: str
) -> None:
    """A bad argument is refused when the operator is made."""
    with pytest.raises(ConfigError) as caught:
        rate_limit(*arguments, **options)
    assert message == str(caught.value)
