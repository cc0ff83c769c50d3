"""``map_async``: slots, order, keys, demand, and arguments."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
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
from rxdispatch.streams import run
from rxdispatch.testing import Probe, Supply, run_virtual
from rxdispatch.valve import Gate
from tests.operators.flow.runs import Work, echo, one_key, to_list

# ---------------------------------------------------------------- values and completion


def test_results_come_as_they_are_ready() -> None:
    """The fastest result comes first, and the completion after the slowest."""

    async def main() -> tuple[Any, float]:
        items = await to_list(Supply([3, 1, 2]).pipe(map_async(Work())))
        return items, asyncio.get_running_loop().time()

    assert ([1, 2, 3], 3.0) == run_virtual(main())


def test_no_more_than_the_limit_are_at_work() -> None:
    """As many items as the limit are in flight, as long as there are items."""

    async def main() -> tuple[int, float]:
        work = Work()
        await run(Supply([1] * 10).pipe(map_async(work, max_concurrent=3)))
        return work.most, asyncio.get_running_loop().time()

    assert (3, 4.0) == run_virtual(main())


def test_an_empty_source_completes() -> None:
    """The completion waits for nothing."""
    assert run_virtual(to_list(reactivex.empty().pipe(map_async(Work())))) == []


def test_any_awaitable_will_do() -> None:
    """Futures and objects with ``__await__`` are accepted, not only coroutines."""

    class Later:
        def __await__(self) -> Any:
            yield from asyncio.sleep(1).__await__()
            return "later"

    async def main() -> Any:
        loop = asyncio.get_running_loop()

        def fn(item: int) -> Awaitable[Any]:
            if item:
                return Later()
            future: asyncio.Future[str] = loop.create_future()
            loop.call_later(2, future.set_result, "future")
            return future

        return await to_list(Supply([0, 1]).pipe(map_async(fn)))

    assert ["later", "future"] == run_virtual(main())


def test_one_instance_serves_many_subscriptions() -> None:
    """Subscriptions at the same time, or one after the other, have slots of their own."""

    async def main() -> list[Any]:
        work = Work()
        stream = Supply([1, 1]).pipe(map_async(work, max_concurrent=1))
        both = await asyncio.gather(to_list(stream), to_list(stream))
        return [*both, await to_list(stream), asyncio.get_running_loop().time()]

    assert [[1, 1], [1, 1], [1, 1], 4.0] == run_virtual(main())


# ---------------------------------------------------------------- order and keys


def test_ordered_results_come_in_the_order_of_the_items() -> None:
    """Each result is emitted as soon as the results before it are."""

    async def main() -> list[Any]:
        log = Probe()
        Supply([2, 1, 3]).pipe(map_async(Work(), ordered=True)).subscribe(log)
        await asyncio.sleep(10)
        return log.timeline

    assert [(2.0, 2), (2.0, 1), (3.0, 3), (3.0, "|")] == run_virtual(main())


def test_what_waits_for_its_turn_keeps_its_slot() -> None:
    """In ordered mode, finished results that wait count against the limit."""

    async def main() -> list[Any]:
        work = Work()
        paced = Supply([10, 1, 1, 1])
        paced.pipe(map_async(work, max_concurrent=2, ordered=True)).subscribe(
            scheduler=LoopScheduler(asyncio.get_running_loop())
        )
        await asyncio.sleep(9)
        before = list(work.started)
        await asyncio.sleep(9)
        return [before, work.started, paced.most_room]

    assert [[10, 1], [10, 1, 1, 1], 2] == run_virtual(main())


def test_items_of_one_key_are_worked_on_one_after_the_other() -> None:
    """Items of other keys overtake them."""

    async def main() -> list[Any]:
        log = Probe()
        work = Work()
        items = [("a", 3), ("a", 1), ("b", 1), ("b", 1)]

        async def fn(item: tuple[str, int]) -> tuple[str, int]:
            await work(item[1])
            return item

        Supply(items).pipe(map_async(fn, key=lambda item: item[0])).subscribe(log)
        await asyncio.sleep(10)
        return log.timeline

    assert [
        (1.0, ("b", 1)),
        (2.0, ("b", 1)),
        (3.0, ("a", 3)),
        (4.0, ("a", 1)),
        (4.0, "|"),
    ] == run_virtual(main())


def test_waiting_for_a_key_takes_no_slot_but_room() -> None:
    """Items of other keys go on; the source is asked for no more than the limit in total."""

    async def main() -> list[Any]:
        paced = Supply(["a"] * 9)
        work = Work()
        paced.pipe(map_async(work, max_concurrent=4, key=str)).subscribe(
            scheduler=LoopScheduler(asyncio.get_running_loop())
        )
        sent = [paced.sent]
        await asyncio.sleep(1.5)
        sent.append(paced.sent)
        await asyncio.sleep(20)
        return [sent, work.most, len(work.ended)]

    assert [[4, 5], 1, 9] == run_virtual(main())


def test_more_keys_than_slots_do_not_hang() -> None:
    """Idle keys leave nothing behind."""

    async def main() -> Any:
        stream = Supply(range(1000))
        return await to_list(stream.pipe(map_async(echo, max_concurrent=2, key=lambda n: n % 100)))

    assert sorted(run_virtual(main())) == list(range(1000))


@pytest.mark.parametrize("ordered", [False, True])
@pytest.mark.parametrize("on_error", ["skip", "stop"])
def test_a_key_that_cannot_be_had_is_an_error_of_the_item(ordered: bool, on_error: Any) -> None:
    """A key function that raises, or an unhashable key, makes its item fail."""

    def key(item: int) -> Any:
        if item == 1:
            raise KeyError("no key")
        return [] if item == 2 else item

    async def main() -> Any:
        source = Supply([0, 1, 2, 3])
        operator = map_async(echo, key=key, on_error=on_error, ordered=ordered)
        return await to_list(source.pipe(operator))

    if on_error == "skip":
        with capture_logs() as logs:
            assert [0, 3] == run_virtual(main())
        assert ["KeyError", "TypeError"] == [entry["error"].split(":")[0] for entry in logs]
    else:
        with pytest.raises(KeyError, match="no key"):
            run_virtual(main())


# ---------------------------------------------------------------- demand


def test_the_source_is_asked_for_no_more_than_there_are_slots() -> None:
    """The source is asked for as many items as there are free slots, from the first to the last."""

    async def main() -> list[int]:
        paced = Supply([1] * 100)
        stream = paced.pipe(map_async(Work(), max_concurrent=5))
        running = asyncio.ensure_future(run(stream))
        sent: list[int] = []
        for _ in range(4):
            await asyncio.sleep(0.5)
            sent.append(paced.sent)
            await asyncio.sleep(0.5)
        await running
        return [*sent, paced.sent, paced.most_room]

    assert [5, 10, 15, 20, 100, 5] == run_virtual(main())


def test_a_source_that_cannot_wait_is_kept_and_named_once() -> None:
    """Nothing is lost, the order is kept, and one warning names the full operator."""

    async def main() -> list[Any]:
        work = Work()
        items = await to_list(reactivex.range(20).pipe(map_async(work, max_concurrent=3)))
        return [work.most, work.started, items]

    with capture_logs() as logs:
        assert [3, list(range(20)), list(range(20))] == run_virtual(main())
    assert [
        {"event": "no_demand", "operator": "map_async", "limit": 3, "log_level": "warning"}
    ] == logs


def test_a_closed_valve_below_stops_new_items_but_not_the_results() -> None:
    """Items in flight are finished and emitted; new ones wait until there is room."""

    async def main() -> list[Any]:
        room = 1
        gate = Gate(lambda: room, None)
        work = Work()
        paced = Supply([1] * 6)
        log = Probe()
        paced.pipe(map_async(work, max_concurrent=2)).subscribe(
            log, scheduler=LoopScheduler(asyncio.get_running_loop(), valve=gate)
        )
        room = 0
        await asyncio.sleep(10)
        closed = [paced.sent, len(log.timeline)]
        room = 1
        gate.opened()
        await asyncio.sleep(10)
        return [*closed, paced.sent, len(log.timeline)]

    assert [2, 2, 6, 7] == run_virtual(main())


def test_what_is_pushed_while_the_valve_below_is_closed_is_kept() -> None:
    """The item starts when there is room, before the source is asked for more."""

    async def main() -> list[Any]:
        room = 0
        gate = Gate(lambda: room, None)
        source: Subject[int] = Subject()
        log = Probe()
        source.pipe(map_async(echo)).subscribe(
            log, scheduler=LoopScheduler(asyncio.get_running_loop(), valve=gate)
        )
        source.on_next(1)
        source.on_next(2)
        source.on_completed()
        await asyncio.sleep(5)
        assert log.timeline == []
        room = 1
        gate.opened()
        await asyncio.sleep(1)
        return log.timeline

    with capture_logs() as logs:
        assert [(5.0, 1), (5.0, 2), (5.0, "|")] == run_virtual(main())
    assert ["no_demand"] == [entry["event"] for entry in logs]


def test_a_slow_stage_below_slows_down_the_source() -> None:
    """Two stages together hold no more than the sum of their limits, and nothing is logged."""

    async def main() -> int:
        paced = Supply([0] * 50)
        stream = paced.pipe(
            map_async(echo, max_concurrent=4),
            map_async(lambda _: asyncio.sleep(1), max_concurrent=2),
        )
        running = asyncio.ensure_future(run(stream))
        most = 0
        for second in range(1, 25):
            await asyncio.sleep(1)
            most = max(most, paced.sent - 2 * second)
        await running
        assert paced.sent == 50
        return most

    with capture_logs() as logs:
        assert run_virtual(main()) <= 6
    assert [] == logs


def test_the_context_of_the_push_goes_with_the_item() -> None:
    """An item keeps its context even if it waits for a slot, for its key or for its turn."""
    name = contextvars.ContextVar("name", default="none")

    async def fn(item: int) -> str:
        await asyncio.sleep(3 - item)
        return name.get()

    async def main(**options: Any) -> list[Any]:
        source: Subject[int] = Subject()
        seen: list[Any] = []
        source.pipe(map_async(fn, **options)).subscribe(
            lambda value: seen.append((value, name.get()))
        )
        for item in range(3):
            context = contextvars.copy_context()
            context.run(name.set, f"push {item}")
            context.run(source.on_next, item)
        await asyncio.sleep(20)
        return sorted(seen)

    expected = [(f"push {n}", f"push {n}") for n in range(3)]
    with capture_logs():
        assert expected == run_virtual(main())
        assert expected == run_virtual(main(max_concurrent=1))
        assert expected == run_virtual(main(ordered=True))
        assert expected == run_virtual(main(key=one_key))
        assert expected == run_virtual(main(max_concurrent=1, key=one_key, ordered=True))


def test_what_a_handler_sets_does_not_leak() -> None:
    """Each task has its own copy of the context."""
    name = contextvars.ContextVar("name", default="none")

    async def fn(item: int) -> str:
        before = name.get()
        name.set(f"item {item}")
        await asyncio.sleep(0)
        return before

    async def main() -> Any:
        stream = Supply(range(5)).pipe(map_async(fn, max_concurrent=1))
        seen: list[str] = []
        await run(stream.pipe(rx.do_action(lambda _: seen.append(name.get())), rx.to_list()))
        return seen, await to_list(stream)

    assert (["none"] * 5, ["none"] * 5) == run_virtual(main())


def test_a_subscriber_may_push_more_items() -> None:
    """A result may lead to new items of the same stream."""

    async def main() -> list[int]:
        source: Subject[int] = Subject()
        seen: list[int] = []

        def on_next(item: int) -> None:
            seen.append(item)
            if item < 5:
                source.on_next(item + 1)
            else:
                source.on_completed()

        source.pipe(map_async(echo, max_concurrent=1, key=str, ordered=True)).subscribe(
            on_next, on_completed=lambda: seen.append(-1)
        )
        source.on_next(0)
        await asyncio.sleep(1)
        return seen

    assert [0, 1, 2, 3, 4, 5, -1] == run_virtual(main())


def test_a_subscriber_that_pushes_does_not_make_it_exceed_the_limit() -> None:
    """The free slot goes to one item, not to both the next of the key and a new one."""

    async def main() -> int:
        work = Work()
        source: Subject[str] = Subject()
        left = 20

        def on_next(_: str) -> None:
            nonlocal left
            if left:
                left -= 1
                source.on_next(f"new {left}")

        source.pipe(map_async(work, max_concurrent=2, key=str)).subscribe(on_next)
        for item in ("a", "a", "a", "b"):
            source.on_next(item)
        await asyncio.sleep(100)
        assert len(work.ended) == 24
        return work.most

    with capture_logs():
        assert run_virtual(main()) == 2


# ---------------------------------------------------------------- properties


@settings(max_examples=60, deadline=None)
@given(
    items=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5), st.booleans()), max_size=30),
    limit=st.integers(1, 5),
    ordered=st.booleans(),
    keyed=st.booleans(),
    paced=st.booleans(),
)
def test_whatever_the_items_every_rule_holds(
    items: list[tuple[int, int, bool]], limit: int, ordered: bool, keyed: bool, paced: bool
) -> None:
    """Nothing is lost or repeated; the limit, and the order in total or per key, are kept."""
    numbered = [(index, *item) for index, item in enumerate(items)]
    now = 0
    most = 0
    at_work: list[int] = []

    async def fn(item: tuple[int, int, int, bool]) -> tuple[int, int]:
        nonlocal now, most
        index, key, seconds, fails = item
        if keyed:
            assert key not in at_work
        at_work.append(key)
        now += 1
        most = max(most, now)
        await asyncio.sleep(seconds)
        now -= 1
        at_work.remove(key)
        if fails:
            raise ValueError(index)
        return index, key

    async def main() -> Any:
        source = Supply(numbered) if paced else reactivex.from_iterable(numbered)
        operator = map_async(
            fn,
            max_concurrent=limit,
            ordered=ordered,
            key=(lambda item: item[1]) if keyed else None,
            on_error="skip",
        )
        return await to_list(source.pipe(operator))

    with capture_logs() as logs:
        got = run_virtual(main())
    expected = [(index, key) for index, key, _, fails in numbered if not fails]
    assert sorted(got) == expected
    assert most <= limit
    skipped = [entry for entry in logs if entry["event"] == "item_skipped"]
    assert len(skipped) == len(items) - len(expected)
    if ordered:
        assert got == expected
    if keyed:
        for key in range(4):
            assert [pair for pair in got if pair[1] == key] == [
                pair for pair in expected if pair[1] == key
            ]


# ---------------------------------------------------------------- arguments


BAD: list[tuple[dict[str, Any], str]] = [
    ({"max_concurrent": 0}, "max_concurrent must be an int >= 1 or a Limit, got 0"),
    ({"max_concurrent": True}, "max_concurrent must be an int >= 1 or a Limit, got True"),
    ({"max_concurrent": 1.5}, "max_concurrent must be an int >= 1 or a Limit, got 1.5"),
    ({"ordered": 1}, "ordered must be True or False, got 1"),
    ({"key": "name"}, "key must be callable or None, got 'name'"),
    ({"timeout": 0}, "timeout must be a finite number of seconds > 0, got 0"),
    ({"timeout": -1.0}, "timeout must be a finite number of seconds > 0, got -1.0"),
    ({"on_error": "ignore"}, 'on_error must be "stop", "skip" or callable, got \'ignore\''),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_a_bad_argument_is_refused_when_the_operator_is_made(
    arguments: dict[str, Any], message: str
) -> None:
    """The error does not wait for a subscription."""
    with pytest.raises(ConfigError) as caught:
        map_async(echo, **arguments)
    assert message == str(caught.value)


def test_functions_of_the_wrong_kind_are_refused() -> None:
    """Such functions are refused, as nothing would await their coroutine."""
    with pytest.raises(ConfigError, match="fn must be callable"):
        map_async(3)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="key must be a plain function"):
        map_async(echo, key=echo)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="on_error must be a plain function"):
        map_async(echo, on_error=_two)


async def _two(item: Any, error: Any) -> Any:
    return item


def test_a_subscription_without_a_loop_is_an_error() -> None:
    """The error goes to ``on_error``."""
    errors: list[Exception] = []
    fn: Callable[[int], Awaitable[int]] = echo
    reactivex.of(1).pipe(map_async(fn)).subscribe(on_error=errors.append)
    assert "no running event loop" in str(errors[0])


# ---------------------------------------------------------------- known limits of demand


def test_after_share_only_the_first_subscriber_is_asked() -> None:
    """The second subscriber keeps its items, and a warning is logged."""

    async def main() -> list[int]:
        paced = Supply(range(20))
        shared = paced.pipe(rx.share())
        slow = Work()
        first = asyncio.ensure_future(run(shared.pipe(map_async(echo, max_concurrent=4))))
        second = asyncio.ensure_future(
            run(shared.pipe(map_async(slow, max_concurrent=1, ordered=True), rx.count()))
        )
        await first
        sent = paced.sent
        await second
        return [sent, slow.most, len(slow.ended)]

    with capture_logs() as logs:
        assert [20, 1, 16] == run_virtual(main())
    assert ["no_demand"] == [entry["event"] for entry in logs]


def test_after_share_the_second_subscriber_does_not_starve() -> None:
    """When the first subscriber is disposed with a closed valve, the source goes on."""

    async def main() -> int:
        paced = Supply(range(20))
        shared = paced.pipe(rx.share())
        first = shared.pipe(map_async(lambda _: asyncio.sleep(1e6), max_concurrent=2)).subscribe()
        second = Probe()
        shared.pipe(map_async(echo)).subscribe(second)
        await asyncio.sleep(5)
        first.dispose()
        await asyncio.sleep(5)
        return len(second.timeline)

    assert run_virtual(main()) == 19
