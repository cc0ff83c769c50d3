"""``buffer_bounded``: policies, conservation of items, the end, and demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import Observable
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.errors import BufferOverflowError, ConfigError
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.streams import KillSwitch, run
from rxdispatch.testing import Probe, Supply, run_virtual
from tests.dropped import dropped
from tests.operators.flow.runs import to_list

WARNING = {"event": "items_dropped", "operator": "buffer_bounded", "log_level": "warning"}


# ---------------------------------------------------------------- values


def test_items_pass_while_nothing_below_is_busy() -> None:
    """Without a valve below, no item waits, so none overflows."""
    stream = reactivex.range(50).pipe(buffer_bounded(1, "error"))
    assert list(range(50)) == run_virtual(to_list(stream))


async def test_what_waits_goes_in_order_as_there_is_room() -> None:
    """Later items do not overtake the waiting ones."""
    probe = Probe(room=0)
    source: Subject[int] = Subject()
    probe.watch(source.pipe(buffer_bounded(5)))
    for n in range(3):
        source.on_next(n)
    assert [] == probe.notifications
    probe.open(2)
    assert [0, 1] == probe.notifications
    probe._room = 1  # without a notice to the source
    source.on_next(3)
    assert [0, 1, 2] == probe.notifications
    probe.open(9)
    assert [0, 1, 2, 3] == probe.notifications


def test_each_item_keeps_its_context() -> None:
    """An item keeps its context even if the subscriber's room triggers it."""
    name: ContextVar[str] = ContextVar("name", default="nobody")

    async def main() -> list[str]:
        seen: list[str] = []
        probe = Probe(room=0, on_item=lambda _: seen.append(name.get()))
        source: Subject[int] = Subject()
        probe.watch(source.pipe(buffer_bounded(5)))

        async def push(who: str) -> None:
            name.set(who)
            source.on_next(1)

        for who in ("ann", "bob"):
            await asyncio.create_task(push(who))
        probe.open(2)
        return seen

    assert ["ann", "bob"] == run_virtual(main())


# ---------------------------------------------------------------- policies


async def overflowing(overflow: Any, count: int = 5, size: int = 2) -> list[Any]:
    """Push *count* items without room, then make room, and complete."""
    probe = Probe(room=0)
    source: Subject[int] = Subject()
    probe.watch(source.pipe(buffer_bounded(size, overflow)))
    for n in range(count):
        source.on_next(n)
    probe.open(100)
    source.on_completed()
    return probe.notifications


def test_the_oldest_may_be_dropped() -> None:
    """A burst is logged once, with the number of items."""
    with capture_logs() as logs:
        assert [3, 4, "|"] == run_virtual(overflowing("drop_oldest"))
    assert [{**WARNING, "reason": "drop_oldest", "items": 3, "total": 3}] == logs


def test_the_newest_may_be_dropped() -> None:
    """The waiting items stay."""
    with capture_logs() as logs:
        assert [0, 1, "|"] == run_virtual(overflowing("drop_newest"))
    assert [{**WARNING, "reason": "drop_newest", "items": 3, "total": 3}] == logs


def test_a_callable_takes_what_does_not_fit() -> None:
    """The item is not dropped, so nothing is logged."""
    taken: list[int] = []
    with capture_logs() as logs:
        assert [0, 1, "|"] == run_virtual(overflowing(taken.append))
    assert [2, 3, 4] == taken
    assert [] == logs


def test_a_callable_that_raises_ends_the_stream() -> None:
    """The stream ends with its error; the waiting items and the given one are dropped."""
    error = OSError("x")

    def refuse(_: int) -> None:
        raise error

    with capture_logs() as logs:
        assert [error] == run_virtual(overflowing(refuse))
    assert [{**WARNING, "reason": "error", "items": 3, "total": 3}] == logs


def test_overflow_may_be_an_error() -> None:
    """The stream ends with the error, and the source is disposed."""

    async def main() -> None:
        probe = Probe(room=0)
        source: Subject[int] = Subject()
        probe.watch(source.pipe(buffer_bounded(2, "error")))
        for n in range(3):
            source.on_next(n)
        (error,) = probe.notifications
        assert isinstance(error, BufferOverflowError)
        assert error.size == 2
        assert [] == source.observers

    with capture_logs() as logs:
        run_virtual(main())
    assert [{**WARNING, "reason": "error", "items": 3, "total": 3}] == logs


def test_a_burst_is_a_second() -> None:
    """Later drops are logged later, with the total so far."""

    async def main() -> list[Any]:
        probe = Probe(room=0)
        source: Subject[int] = Subject()
        probe.watch(source.pipe(buffer_bounded(1, "drop_newest")))
        told: list[Any] = []
        for pause in (0.9, 0.2, 5.0):
            for n in range(10):
                source.on_next(n)
            await asyncio.sleep(pause)
            told.append([(entry["items"], entry["total"]) for entry in logs])
        source.on_error(OSError("x"))
        return told

    with capture_logs() as logs:
        told = run_virtual(main())
    assert [[], [(19, 19)], [(19, 19), (10, 29)]] == told
    assert (1, 30) == (logs[-1]["items"], logs[-1]["total"])


# ---------------------------------------------------------------- demand


def test_its_valve_closes_when_it_is_full_and_not_before() -> None:
    """The valve is open even while the one below is closed, which is what a buffer is for."""

    async def main() -> list[int]:
        paced = Supply(range(100))
        probe = Probe(room=0)
        probe.watch(paced.pipe(buffer_bounded(7)))
        sent = [paced.sent]
        probe.open(3)
        sent.append(paced.sent)
        probe.dispose()
        return sent

    with capture_logs() as logs:
        assert [7, 10] == run_virtual(main())
    assert [] == logs


def test_a_source_that_cannot_wait_is_kept_and_named() -> None:
    """Nothing is lost with "wait", and the log names the operator once."""
    with capture_logs() as logs:
        assert [*range(5), "|"] == run_virtual(overflowing("wait"))
    assert [
        {"event": "no_demand", "operator": "buffer_bounded", "limit": 2, "log_level": "warning"}
    ] == logs


@pytest.mark.parametrize("overflow", ["drop_oldest", "drop_newest"])
def test_with_a_policy_that_drops_the_source_never_waits(overflow: Any) -> None:
    """The source is pulled as fast as it can emit."""

    async def main() -> int:
        paced = Supply(range(100))
        probe = Probe(room=0)
        probe.watch(paced.pipe(buffer_bounded(7, overflow)))
        await asyncio.sleep(2)
        return paced.sent

    with capture_logs() as logs:
        assert run_virtual(main()) == 100
    assert 93 == dropped(logs)


def test_many_items_into_a_slow_stage_are_a_bounded_number_at_a_time() -> None:
    """The number of held items is bounded, through operators of RxPY and of this package."""

    async def main() -> list[int]:
        paced = Supply(range(20_000))
        most = done = 0

        async def slow(items: list[int]) -> None:
            nonlocal most, done
            most = max(most, paced.sent - done)
            await asyncio.sleep(1)
            done += len(items)

        async def same(n: int) -> int:
            return n

        # mypy cannot infer the items of purely generic operators in a row.
        hold: Callable[[Observable[int]], Observable[int]] = buffer_bounded(30)
        more: Callable[[Observable[int]], Observable[int]] = rx.map(lambda n: n + 1)
        positive: Callable[[Observable[int]], Observable[int]] = rx.filter(lambda n: n > 0)
        source = paced
        stream = source.pipe(
            more,
            positive,
            map_async(same, max_concurrent=8),
            hold,
            batch(10, 1.0),
            map_async(slow, max_concurrent=2),
        )
        await run(stream)
        return [done, most]

    with capture_logs() as logs:
        done, most = run_virtual(main())
    assert 20_000 == done
    # Two batches in progress, the waiting items, eight on their way, and one open batch.
    assert 20 <= most <= 2 * 10 + 30 + 8 + 10
    assert [] == logs


# ---------------------------------------------------------------- the end


async def test_completion_waits_for_what_waits() -> None:
    """The completion comes after the waiting items, and is never dropped."""
    probe = Probe(room=0)
    source: Subject[int] = Subject()
    probe.watch(source.pipe(buffer_bounded(2)))
    source.on_next(1)
    source.on_next(2)
    source.on_completed()
    assert [] == probe.notifications
    probe.open(1)
    assert [1] == probe.notifications
    probe.open(1)
    assert [1, 2, "|"] == probe.notifications


async def test_completion_with_nothing_waiting_needs_no_room() -> None:
    """Without waiting items, the completion needs no room."""
    probe = Probe(room=0)
    probe.watch(reactivex.empty().pipe(buffer_bounded(2)))
    assert ["|"] == probe.notifications


def test_an_error_passes_at_once() -> None:
    """Waiting items are dropped and logged."""
    error = OSError("x")

    async def main() -> list[Any]:
        probe = Probe(room=0)
        source: Subject[int] = Subject()
        probe.watch(source.pipe(buffer_bounded(2)))
        source.on_next(1)
        source.on_error(error)
        probe.open(5)
        return probe.notifications

    with capture_logs() as logs:
        assert [error] == run_virtual(main())
    assert [{**WARNING, "reason": "error", "items": 1, "total": 1}] == logs


async def test_disposal_drops_what_waits() -> None:
    """The source is disposed, and no listener is left."""
    probe = Probe(room=0)
    source: Subject[int] = Subject()
    probe.watch(source.pipe(buffer_bounded(2)))
    source.on_next(1)
    probe.dispose()
    probe.dispose()
    probe.open(5)
    assert [] == probe.notifications
    assert [] == source.observers


def test_disposal_from_within_on_next() -> None:
    """Nothing comes after the disposal, however many items wait."""

    async def main() -> list[Any]:
        probe = Probe(room=0, on_item=lambda n: probe.dispose() if n == 1 else None)
        paced = Supply(range(10))
        probe.watch(paced.pipe(buffer_bounded(5)))
        probe.open(5)
        return [probe.notifications, paced.disposed]

    assert [[0, 1], 1] == run_virtual(main())


@pytest.mark.parametrize("end", ["on_completed", "on_error"])
def test_the_end_from_within_on_next(end: str) -> None:
    """One terminal event comes: completion after the waiting items, an error before them."""
    error = OSError("x")

    async def main() -> list[Any]:
        source: Subject[int] = Subject()

        def finish(n: int) -> None:
            if n == 0:
                getattr(source, end)(*([error] if end == "on_error" else []))

        probe = Probe(room=0, on_item=finish).watch(source.pipe(buffer_bounded(5)))
        source.on_next(0)
        source.on_next(1)
        probe.open(5)
        return probe.notifications

    with capture_logs():
        expected = [0, error] if end == "on_error" else [0, 1, "|"]
        assert expected == run_virtual(main())


def test_an_item_that_an_item_leads_to_comes_after_it() -> None:
    """A subscriber that is inside ``on_next`` is busy."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        got: list[Any] = []

        def on_next(n: int) -> None:
            got.append(("begin", n))
            if n < 3:
                source.on_next(n + 1)
            got.append(("end", n))

        source.pipe(buffer_bounded(2)).subscribe(on_next)
        source.on_next(0)
        return got

    assert [(what, n) for n in range(4) for what in ("begin", "end")] == run_virtual(main())


def _ignore(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Ignore the error."""


def test_a_subscriber_that_raises_loses_only_that_item() -> None:
    """The later items still come, and so does the end."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(_ignore)
        source: Subject[int] = Subject()

        def fail(n: int) -> None:
            raise ValueError(n)

        probe = Probe(room=0, on_item=fail).watch(source.pipe(buffer_bounded(5)))
        for n in range(3):
            source.on_next(n)
        source.on_completed()
        with pytest.raises(ValueError, match="0"):
            probe.open(5)
        await asyncio.sleep(1)
        return probe.notifications

    assert [0, 1, 2, "|"] == run_virtual(main())


def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription has a buffer of its own."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        stream = source.pipe(buffer_bounded(2))
        one, two, three = Probe(room=0), Probe(room=5), Probe()
        one.watch(stream)
        source.on_next(1)
        two.watch(stream)
        source.on_next(2)
        source.on_completed()
        one.open(5)
        stream.subscribe(three)
        return [one.notifications, two.notifications, three.notifications]

    assert [[1, 2, "|"], [2, "|"], ["|"]] == run_virtual(main())


def test_a_drain_waits_for_what_waits() -> None:
    """The drain includes the items that the buffer holds."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        done: list[int] = []

        async def slow(n: int) -> None:
            await asyncio.sleep(1)
            done.append(n)

        source: Subject[int] = Subject()
        gate: Callable[[Observable[int]], Observable[int]] = switch.gate()
        hold: Callable[[Observable[int]], Observable[int]] = buffer_bounded(5)
        stream = source.pipe(gate, hold, map_async(slow, max_concurrent=1))
        running = asyncio.create_task(run(stream))
        await asyncio.sleep(0)
        for n in range(4):
            source.on_next(n)
        drained = await switch.drain(100)
        await running
        return [drained, done, asyncio.get_running_loop().time()]

    assert [True, [0, 1, 2, 3], 4.0] == run_virtual(main())


def test_a_drain_that_runs_out_of_time_ends_it() -> None:
    """Waiting items are dropped."""

    async def main() -> bool:
        switch = KillSwitch()
        source: Subject[int] = Subject()
        gate: Callable[[Observable[int]], Observable[int]] = switch.gate()
        hold: Callable[[Observable[int]], Observable[int]] = buffer_bounded(5)
        stream = source.pipe(gate, hold, map_async(asyncio.sleep, max_concurrent=1))
        running = asyncio.create_task(run(stream))
        await asyncio.sleep(0)
        for _ in range(4):
            source.on_next(100)
        drained = await switch.drain(1)
        await asyncio.wait([running])
        return drained or running.exception() is None

    with capture_logs():
        assert not run_virtual(main())


# ---------------------------------------------------------------- properties

STEPS = st.lists(
    st.one_of(
        st.integers(1, 6).map(lambda n: ("push", n)), st.integers(1, 4).map(lambda n: ("open", n))
    ),
    max_size=30,
)


@settings(max_examples=150, deadline=None)
@given(
    steps=STEPS,
    size=st.integers(1, 4),
    overflow=st.sampled_from(["wait", "drop_oldest", "drop_newest", "callable"]),
    end=st.sampled_from(["complete", "fail", "dispose"]),
)
def test_no_item_is_lost_without_a_word(
    steps: list[tuple[str, int]], size: int, overflow: Any, end: str
) -> None:
    """After every step, delivered + dropped + taken + held = offered, in order."""

    async def main() -> None:
        probe = Probe(room=0)
        taken: list[int] = []
        source: Subject[int] = Subject()
        policy = taken.append if overflow == "callable" else overflow
        probe.watch(source.pipe(buffer_bounded(size, policy)))
        offered = 0
        for what, count in steps:
            if what == "push":
                for _ in range(count):
                    source.on_next(offered)
                    offered += 1
            else:
                probe.open(count)
            assert sorted(probe.notifications) == probe.notifications
        delivered = len(probe.notifications)
        held = 0
        if end == "complete":
            source.on_completed()
            probe.open(10**6)
            assert "|" == probe.notifications[-1]
            delivered = len(probe.notifications) - 1
        elif end == "fail":
            source.on_error(OSError("x"))
            assert isinstance(probe.notifications[-1], OSError)
        else:
            probe.dispose()
            # Only disposal is silent, as no policy applies to the held items.
            held = offered - delivered - dropped(logs) - len(taken)
            assert 0 <= held <= (offered if overflow == "wait" else size)
        assert offered == delivered + dropped(logs) + len(taken) + held
        if overflow == "wait" and end == "complete":
            assert [*range(offered), "|"] == probe.notifications

    with capture_logs() as logs:
        run_virtual(main())


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "size must be an int >= 1, got 0"),
        ((1.5,), "size must be an int >= 1, got 1.5"),
        ((True,), "size must be an int >= 1, got True"),
        (
            (1, "drop"),
            "overflow must be one of wait, drop_oldest, drop_newest, error or callable, got 'drop'",
        ),
        (
            (1, None),
            "overflow must be one of wait, drop_oldest, drop_newest, error or callable, got None",
        ),
    ],
)
def test_a_bad_argument_is_refused(arguments: tuple[Any, ...], message: str) -> None:
    """A bad argument is refused when the operator is made."""
    with pytest.raises(ConfigError) as caught:
        buffer_bounded(*arguments)
    assert message == str(caught.value)


def test_a_coroutine_function_is_refused() -> None:
    """A coroutine function is refused, as nothing would await it."""

    async def take(_: int) -> None:
        """Take the item."""

    with pytest.raises(ConfigError, match="overflow must be a plain function"):
        buffer_bounded(1, take)
