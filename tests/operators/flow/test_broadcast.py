"""``broadcast``: several subscribers that come and go, the end, and demand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import Observable, abc
from reactivex import operators as rx
from reactivex.disposable import SingleAssignmentDisposable
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.backoff import Backoff
from rxdispatch.errors import BufferOverflowError, ConfigError
from rxdispatch.operators.flow._broadcast import broadcast
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.streams import KillSwitch, from_iterable, run
from rxdispatch.testing import Probe, Supply, run_virtual
from tests.dropped import dropped
from tests.operators.flow.runs import to_list


async def sleep(seconds: int) -> None:
    """Work for *seconds* seconds."""
    await asyncio.sleep(seconds)


def later(paced: Supply[Any]) -> Observable[Any]:
    """Start the stream with the loop's next turn, as the streams of this package do."""

    def subscribe(
        observer: abc.ObserverBase[Any], scheduler: abc.SchedulerBase | None = None
    ) -> abc.DisposableBase:
        later = SingleAssignmentDisposable()

        def begin() -> None:
            later.disposable = paced.subscribe(observer, scheduler=scheduler)

        asyncio.get_running_loop().call_soon(begin)
        return later

    return Observable(subscribe)


# ---------------------------------------------------------------- values


async def test_all_get_every_item() -> None:
    """All subscribers share one subscription to the source."""
    source: Subject[int] = Subject()
    shared = source.pipe(broadcast(5))
    one, two = Probe(), Probe()
    shared.subscribe(one)
    shared.subscribe(two)
    assert 1 == len(source.observers)
    for n in range(3):
        source.on_next(n)
    source.on_completed()
    assert [[0, 1, 2, "|"]] * 2 == [one.notifications, two.notifications]


async def test_each_has_a_queue_of_its_own() -> None:
    """A busy subscriber does not keep the others waiting while its queue has room."""
    source: Subject[int] = Subject()
    shared = source.pipe(broadcast(5))
    slow, fast = Probe(room=0), Probe(room=100)
    slow.watch(shared)
    fast.watch(shared)
    for n in range(3):
        source.on_next(n)
    assert [[], [0, 1, 2]] == [slow.notifications, fast.notifications]
    slow.open(2)
    assert [0, 1] == slow.notifications


async def test_who_comes_late_gets_what_comes_from_then_on() -> None:
    """The first subscriber starts the source, and later ones get what comes from then on."""
    source: Subject[int] = Subject()
    shared = source.pipe(broadcast(5))
    one, two = Probe(), Probe()
    shared.subscribe(one)
    source.on_next(1)
    shared.subscribe(two)
    source.on_next(2)
    assert [[1, 2], [2]] == [one.notifications, two.notifications]


async def test_the_first_item_of_a_hot_source_is_not_lost() -> None:
    """The source is subscribed to at once, and may emit during that."""
    one = Probe()
    reactivex.of(1, 2).pipe(broadcast(1)).subscribe(one)
    assert [1, 2, "|"] == one.notifications


async def test_an_item_that_an_item_leads_to_comes_after_it_for_all() -> None:
    """The order is the same for subscribers that have not received the first item yet."""
    source: Subject[int] = Subject()
    shared = source.pipe(broadcast(5))
    got: list[Any] = []

    def answer(n: int) -> None:
        got.append(("one", n))
        if n == 0:
            source.on_next(1)

    shared.subscribe(answer)
    shared.subscribe(lambda n: got.append(("two", n)))
    source.on_next(0)
    assert [0, 1] == [n for who, n in got if who == "one"]
    assert [0, 1] == [n for who, n in got if who == "two"]


async def test_somebody_may_come_from_within_on_next() -> None:
    """The new subscriber does not get the current item."""
    source: Subject[int] = Subject()
    shared = source.pipe(broadcast(5))
    two = Probe()

    def bring(_: int) -> None:
        shared.subscribe(two)

    shared.pipe(rx.take(1)).subscribe(bring)
    shared.subscribe()
    source.on_next(1)
    source.on_next(2)
    assert [2] == two.notifications


# ---------------------------------------------------------------- demand


def test_the_slowest_holds_up_the_source() -> None:
    """When its queue is full, the source waits, so no subscriber is more than a queue ahead."""

    async def main() -> list[Any]:
        paced = Supply(range(100))
        shared = later(paced).pipe(broadcast(4))
        slow, fast = Probe(room=0), Probe(room=1000)
        slow.watch(shared)
        fast.watch(shared)
        await asyncio.sleep(1)
        sent = [paced.sent]
        slow.open(3)
        fast.open(1000)
        sent.append(paced.sent)
        slow.open(1000)
        return [sent, paced.sent, slow.notifications == fast.notifications == [*range(100), "|"]]

    with capture_logs() as logs:
        assert [[4, 7], 100, True] == run_virtual(main())
    assert [] == logs


def test_beside_share_that_counts_only_the_first() -> None:
    """The operator exists because ``share`` ignores the demand of a slow second handler."""

    async def most_held(operator: Callable[[Observable[int]], Observable[int]]) -> int:
        paced = Supply(range(1000))
        done = most = 0

        async def fast(_: int) -> None:
            await asyncio.sleep(0)

        async def slow(_: int) -> None:
            nonlocal done, most
            most = max(most, paced.sent - done)
            await asyncio.sleep(1)
            done += 1

        shared = later(paced).pipe(operator)
        both = reactivex.merge(
            shared.pipe(map_async(fast, max_concurrent=2)),
            shared.pipe(map_async(slow, max_concurrent=2)),
        )
        await run(both)
        assert 1000 == done
        return most

    with capture_logs():
        assert run_virtual(most_held(rx.share())) > 900
    with capture_logs() as logs:
        assert run_virtual(most_held(broadcast(5))) <= 5 + 2 + 2
    assert [] == logs


def test_who_leaves_no_longer_holds_up_the_source() -> None:
    """A subscriber stops counting, in whichever way it leaves."""

    async def main() -> list[int]:
        paced = Supply(range(100))
        shared = later(paced).pipe(broadcast(4))
        fast, one, two = Probe(room=1000), Probe(room=0), Probe(room=0)
        fast.watch(shared)
        one.watch(shared)
        two.watch(shared.pipe(rx.take(1)))
        await asyncio.sleep(1)
        sent = [paced.sent]
        one.dispose()
        sent.append(paced.sent)
        two.open(1)
        sent.append(paced.sent)
        return sent

    assert [4, 4, 100] == run_virtual(main())


def test_a_source_that_cannot_wait_is_kept_and_named() -> None:
    """Nothing is lost with "wait", and the log names the operator once."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        probe = Probe(room=0)
        probe.watch(source.pipe(broadcast(2)))
        for n in range(5):
            source.on_next(n)
        probe.open(9)
        return probe.notifications

    with capture_logs() as logs:
        assert [0, 1, 2, 3, 4] == run_virtual(main())
    assert [
        {"event": "no_demand", "operator": "broadcast", "limit": 2, "log_level": "warning"}
    ] == logs


@pytest.mark.parametrize(
    ("overflow", "expected"), [("drop_oldest", [3, 4]), ("drop_newest", [0, 1])]
)
def test_each_queue_overflows_by_itself(overflow: Any, expected: list[int]) -> None:
    """A subscriber that keeps up loses nothing."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        shared = source.pipe(broadcast(2, overflow))
        slow, fast = Probe(room=0), Probe(room=100)
        slow.watch(shared)
        fast.watch(shared)
        for n in range(5):
            source.on_next(n)
        slow.open(9)
        source.on_completed()
        return [slow.notifications, fast.notifications]

    with capture_logs() as logs:
        assert [[*expected, "|"], [0, 1, 2, 3, 4, "|"]] == run_virtual(main())
    assert 3 == dropped(logs)


def test_a_subscriber_that_overflows_leaves_alone() -> None:
    """A callable takes the item that does not fit; "error" ends that subscriber alone."""

    async def main() -> list[Any]:
        taken: list[int] = []
        source: Subject[int] = Subject()
        for overflow in ("error", taken.append):
            shared: Observable[int] = source.pipe(broadcast(2, overflow))
            slow, fast = Probe(room=0), Probe(room=100)
            slow.watch(shared)
            fast.watch(shared)
            for n in range(4):
                source.on_next(n)
            slow.open(9)
            taken.append(len(fast.notifications))
            taken.extend(
                [-1]
                if isinstance(slow.notifications[0], BufferOverflowError)
                else slow.notifications
            )
        return taken

    with capture_logs() as logs:
        assert [4, -1, 2, 3, 4, 0, 1] == run_virtual(main())
    assert 3 == dropped(logs)


# ---------------------------------------------------------------- harm


def test_a_subscriber_that_raises_harms_nobody() -> None:
    """Only this subscriber gets its error; the others and the producer do not notice."""
    error = ValueError("x")

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        shared = source.pipe(broadcast(5))

        def fail(_: int) -> None:
            raise error

        before, bad, after = Probe(), Probe(on_item=fail), Probe()
        shared.subscribe(before)
        shared.subscribe(bad)
        shared.subscribe(after)
        for n in range(2):
            source.on_next(n)
        return [before.notifications, bad.notifications, after.notifications]

    with capture_logs() as logs:
        assert [[0, 1], [0, error], [0, 1]] == run_virtual(main())
    assert ["subscriber_failed"] == [entry["event"] for entry in logs]


@pytest.mark.parametrize("end", ["on_completed", "on_error"])
def test_a_subscriber_that_raises_at_the_end_harms_nobody(end: str) -> None:
    """The others still see the end."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        shared = source.pipe(broadcast(5))
        after = Probe()

        def fail(*_: Any) -> None:
            raise ValueError("x")

        shared.subscribe(on_error=fail, on_completed=fail)
        shared.subscribe(after)
        getattr(source, end)(*([OSError("y")] if end == "on_error" else []))
        return [str(item) for item in after.notifications]

    with capture_logs() as logs:
        assert [["|"], ["y"]][end == "on_error"] == run_virtual(main())
    assert ["subscriber_failed"] == [entry["event"] for entry in logs]


# ---------------------------------------------------------------- coming and going


async def test_the_source_is_left_with_the_last_one() -> None:
    """The next subscriber starts the source again."""
    source: Subject[int] = Subject()
    shared = source.pipe(broadcast(5))
    one, two, three = Probe(), Probe(), Probe()
    subscriptions = [shared.subscribe(one), shared.subscribe(two)]
    subscriptions[0].dispose()
    subscriptions[0].dispose()
    assert 1 == len(source.observers)
    subscriptions[1].dispose()
    assert 0 == len(source.observers)
    source.on_next(1)
    shared.subscribe(three)
    assert 1 == len(source.observers)
    source.on_next(2)
    assert [[], [], [2]] == [one.notifications, two.notifications, three.notifications]


async def test_all_may_leave_from_within_on_next() -> None:
    """The others do not get the current item any more."""
    source: Subject[int] = Subject()
    shared = source.pipe(broadcast(5))
    two = Probe()
    subscriptions: list[Any] = []

    def leave(_: int) -> None:
        for subscription in subscriptions:
            subscription.dispose()

    subscriptions.append(shared.subscribe(leave))
    subscriptions.append(shared.subscribe(two))
    source.on_next(1)
    source.on_next(2)
    assert [] == two.notifications
    assert [] == source.observers


async def test_completion_comes_after_what_waits() -> None:
    """Waiting items come before the completion; a late subscriber gets it at once."""
    source: Subject[int] = Subject()
    shared = source.pipe(broadcast(5))
    slow, fast, late, very_late = Probe(room=0), Probe(), Probe(), Probe()
    slow.watch(shared)
    shared.subscribe(fast)
    source.on_next(1)
    source.on_completed()
    shared.subscribe(late)
    assert [[], [1, "|"], ["|"]] == [slow.notifications, fast.notifications, late.notifications]
    slow.open(1)
    assert [1, "|"] == slow.notifications
    shared.subscribe(very_late)
    assert ["|"] == very_late.notifications


def test_an_error_comes_at_once_to_all() -> None:
    """Waiting items are dropped, and the next subscriber starts the source again."""
    error = OSError("x")

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        sources: list[Observable[int]] = [source, reactivex.of(7)]
        shared = reactivex.defer(lambda _: sources.pop(0)).pipe(broadcast(5))
        slow, fast, late = Probe(room=0), Probe(), Probe()
        slow.watch(shared)
        shared.subscribe(fast)
        source.on_next(1)
        source.on_error(error)
        shared.subscribe(late)
        return [slow.notifications, fast.notifications, late.notifications]

    with capture_logs() as logs:
        assert [[error], [1, error], [7, "|"]] == run_virtual(main())
    assert 1 == dropped(logs)


def test_retry_below_works() -> None:
    """The first subscriber that retries starts the source, and the others join it."""

    async def main() -> list[Any]:
        tries = 0

        def source(_: Any) -> Observable[int]:
            nonlocal tries
            tries += 1
            items = rx.delay_subscription(1.0)
            if tries == 1:
                return reactivex.throw(OSError("x")).pipe(items)
            return reactivex.of(1, 2).pipe(items)

        shared = reactivex.defer(source).pipe(broadcast(5), retry_backoff(Backoff(1.0)))
        return [*await asyncio.gather(to_list(shared), to_list(shared)), tries]

    assert [[1, 2], [1, 2], 2] == run_virtual(main())


async def test_one_instance_serves_many_sources() -> None:
    """Each source has subscribers of its own."""
    operator: Callable[[Observable[int]], Observable[int]] = broadcast(5)
    one, two = Probe(), Probe()
    reactivex.of(1).pipe(operator).subscribe(one)
    reactivex.of(2).pipe(operator).subscribe(two)
    assert [[1, "|"], [2, "|"]] == [one.notifications, two.notifications]


# ---------------------------------------------------------------- draining


def test_a_drain_waits_for_what_all_have_below() -> None:
    """The drain waits for all subscribers, even if they finish at different times."""

    async def main() -> list[Any]:
        switch = KillSwitch()
        done: list[float] = []
        source: Subject[int] = Subject()
        shared: Observable[int] = source.pipe(switch.gate(), broadcast(5))

        def working(seconds: float) -> Any:
            async def work(_: int) -> None:
                await asyncio.sleep(seconds)
                done.append(seconds)

            return asyncio.create_task(run(shared.pipe(map_async(work, max_concurrent=1))))

        running = [working(1), working(3)]
        await asyncio.sleep(0)
        source.on_next(1)
        source.on_next(2)
        drained = await switch.drain(100)
        await asyncio.gather(*running)
        return [drained, done, asyncio.get_running_loop().time()]

    assert [True, [1, 1, 3, 3], 6.0] == run_virtual(main())


def test_a_drain_that_runs_out_of_time_ends_all() -> None:
    """The drain ends streams that are working on their last items, and streams that wait."""

    async def main() -> list[bool]:
        switch = KillSwitch()
        source: Subject[int] = Subject()
        shared: Observable[int] = source.pipe(switch.gate(), broadcast(5))
        stream = shared.pipe(map_async(sleep, max_concurrent=1))
        running = [asyncio.create_task(run(stream)) for _ in range(2)]
        await asyncio.sleep(0)
        source.on_next(100)
        short = asyncio.create_task(run(shared.pipe(map_async(sleep, max_concurrent=9))))
        await asyncio.sleep(0)
        source.on_next(200)
        drained = await switch.drain(1)
        await asyncio.wait([*running, short])
        return [drained, *(task.exception() is None for task in (*running, short))]

    with capture_logs():
        assert [False] * 4 == run_virtual(main())


# ---------------------------------------------------------------- properties


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.just(("push", 0, 0)),
            st.tuples(st.just("open"), st.integers(0, 2), st.integers(1, 4)),
        ),
        max_size=40,
    ),
    size=st.integers(1, 3),
    overflow=st.sampled_from(["wait", "drop_oldest", "drop_newest"]),
)
def test_no_item_is_lost_without_a_word(
    steps: list[tuple[str, int, int]], size: int, overflow: Any
) -> None:
    """For each subscriber, delivered + dropped + held = offered, in order."""

    async def main() -> None:
        source: Subject[int] = Subject()
        shared = source.pipe(broadcast(size, overflow))
        probes = [Probe(room=0), Probe(room=0), Probe(room=0)]
        for probe in probes:
            probe.watch(shared)
        offered = 0
        for what, which, count in steps:
            if what == "push":
                source.on_next(offered)
                offered += 1
            else:
                probes[which].open(count)
        source.on_completed()
        for probe in probes:
            probe.open(10**6)
            assert "|" == probe.notifications[-1]
            items = probe.notifications[:-1]
            assert sorted(set(items)) == items
            if overflow == "wait":
                assert list(range(offered)) == items
        assert 3 * offered == sum(len(probe.notifications) - 1 for probe in probes) + dropped(logs)

    with capture_logs() as logs:
        run_virtual(main())


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "size must be an int >= 1, got 0"),
        ((1, 2), "overflow must be one of wait, .* or callable, got 2"),
    ],
)
def test_a_bad_argument_is_refused(arguments: Any, message: str) -> None:
    """A bad argument is refused when the operator is made."""
    with pytest.raises(ConfigError, match=message):
        broadcast(*arguments)


def test_the_source_starts_in_the_context_of_the_shared_stream() -> None:
    """The source does not start in the context of the first subscriber."""
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    async def main() -> list[str]:
        seen: list[str] = []

        def begin(_: Any) -> Observable[str]:
            return from_iterable(tenant.get() for _ in range(1))

        tenant.set("shared")
        shared = reactivex.defer(begin).pipe(broadcast(3))

        async def handle() -> None:
            tenant.set("first")
            shared.subscribe(seen.append)

        await asyncio.create_task(handle())
        await asyncio.sleep(1)
        return seen

    assert ["shared"] == run_virtual(main())
