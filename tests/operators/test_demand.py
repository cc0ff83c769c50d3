"""Chains of operators: how much they hold, and that they may end at any moment."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Iterator
from operator import add
from typing import Any

import pytest
import reactivex
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex import Observable
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._broadcast import broadcast
from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.operators.flow._checkpoint import checkpoint
from rxdispatch.operators.flow._conflate import conflate
from rxdispatch.operators.flow._deadline import deadline
from rxdispatch.operators.flow._delay_until import delay_until
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.operators.flow._measure import measure
from rxdispatch.operators.flow._meter import Meter
from rxdispatch.operators.flow._prioritize import prioritize
from rxdispatch.operators.flow._rate_limit import rate_limit
from rxdispatch.operators.flow._retry_backoff import retry_backoff
from rxdispatch.operators.flow._timeout_idle import timeout_idle
from rxdispatch.streams import run
from rxdispatch.testing import Probe, Supply, no_leaks, run_virtual

Operator = Callable[[Observable[Any]], Observable[Any]]


async def a_moment(item: Any) -> Any:
    """Return *item* after 100 ms."""
    await asyncio.sleep(0.1)
    return item


# ---------------------------------------------------------------- how much is held


def test_a_long_source_above_a_slow_sink_is_held_back() -> None:
    """The bound holds across map, filter, batch, map_async and another batch."""
    total = 40_000
    stored = most = 0

    async def store(lists: list[list[str]]) -> int:
        nonlocal stored, most
        most = max(most, supply.sent - stored)
        await asyncio.sleep(1)
        items = sum(len(items) for items in lists)
        stored += items
        return items

    supply: Supply[int] = Supply(range(total))

    async def main() -> Any:
        return await run(
            supply.pipe(
                rx.map(str),
                rx.filter(bool),
                batch(10, 5.0),
                map_async(a_moment, max_concurrent=4),
                batch(5, 5.0),
                map_async(store, max_concurrent=2),
                rx.reduce(add, 0),
            )
        )

    with capture_logs() as logs:
        assert total == run_virtual(main())
    assert [] == logs
    # Two lists of five lists of ten are being stored, as many are gathered, and four are in
    # flight.
    assert most <= 2 * 50 + 2 * 50 + 4 * 10 + 10


@pytest.mark.parametrize("levels", [2, 3])
def test_a_handler_may_run_a_stream_of_its_own(levels: int) -> None:
    """The inner stream does not see the valve of the outer one, so it does not wait for itself."""

    async def nested(level: int) -> int:
        if level == 0:
            await asyncio.sleep(1)
            return 1
        stream = Supply([level - 1] * 3).pipe(
            map_async(nested, max_concurrent=1), rx.reduce(add, 0)
        )
        return await run(stream) or 0

    async def main() -> int:
        async with no_leaks():
            return await nested(levels)

    with capture_logs() as logs:
        assert 3**levels == run_virtual(main())
    assert [] == logs


def test_an_inner_stream_heeds_the_valve_of_the_outer_one() -> None:
    """A stream inside ``flat_map`` is asked for no more items than there is room below."""

    async def main() -> list[int]:
        supplies = [Supply(range(100)) for _ in range(3)]
        stream = reactivex.from_iterable(supplies).pipe(
            rx.flat_map(lambda supply: supply), map_async(a_moment, max_concurrent=2)
        )
        probe = Probe().watch(stream)
        await asyncio.sleep(1.05)
        probe.dispose()
        return [sum(supply.sent for supply in supplies), len(probe.items)]

    with capture_logs() as logs:
        assert [22, 20] == run_virtual(main())
    assert [] == logs


def test_after_share_only_the_first_is_asked_but_broadcast_asks_each() -> None:
    """``share`` lets the slow second subscriber accumulate items, ``broadcast`` does not."""

    async def most_held(operator: Operator) -> int:
        supply = Supply(range(300))
        shared = supply.pipe(operator)
        fast = Probe().watch(shared.pipe(map_async(a_moment, max_concurrent=10)))
        slow = Probe().watch(
            shared.pipe(map_async(lambda n: asyncio.sleep(1, n), max_concurrent=1))
        )
        held, missed = 0, supply.sent
        while not fast.ended:
            await asyncio.sleep(0.05)
            held = max(held, supply.sent - missed - len(slow.items))
        await slow.wait()
        return held

    with capture_logs() as logs:
        assert run_virtual(most_held(rx.share())) > 250
    assert ["no_demand"] == [entry["event"] for entry in logs]
    with capture_logs() as logs:
        assert run_virtual(most_held(broadcast(5))) <= 7
    assert [] == logs


# ---------------------------------------------------------------- ends at any moment


def now(_: Any) -> float:
    """Return a time shortly after now."""
    return asyncio.get_running_loop().time() + 0.05


def flat(lists: Observable[Any]) -> Observable[Any]:
    """Flatten lists into single items."""
    return lists.pipe(rx.flat_map(reactivex.from_iterable))


STAGES: dict[str, Callable[[], list[Operator]]] = {
    "map": lambda: [rx.map(lambda n: n)],
    "map_async": lambda: [map_async(a_moment, max_concurrent=2)],
    "map_async ordered": lambda: [map_async(a_moment, max_concurrent=3, ordered=True)],
    "map_async keyed": lambda: [map_async(a_moment, max_concurrent=3, key=lambda n: n % 2)],
    "batch": lambda: [batch(3, 0.2), flat],
    "buffer_bounded": lambda: [buffer_bounded(2)],
    "conflate": lambda: [conflate(key=lambda n: n % 3)],
    "prioritize": lambda: [prioritize(lambda n: -n, size=3)],
    "broadcast": lambda: [broadcast(2)],
    "rate_limit": lambda: [rate_limit(20, burst=2)],
    "delay_until": lambda: [delay_until(now, size=4)],
    "measure": lambda: [measure(Meter("x"), map_async(a_moment, max_concurrent=2))],
    "checkpoint": lambda: [checkpoint("x")],
    "timeout_idle": lambda: [timeout_idle(1e6)],
    "deadline": lambda: [deadline(1e6)],
    "retry_backoff": lambda: [retry_backoff(retry_on=KeyError)],
    "share": lambda: [rx.share()],
}


class Ending:
    """How and when a stream must end."""

    def __init__(self, kind: str, item: int, when: float) -> None:
        self.kind = kind
        self.item = item
        self.when = when

    def __repr__(self) -> str:
        return f"Ending({self.kind!r}, {self.item}, {self.when})"


endings = st.builds(
    Ending,
    st.sampled_from(
        ["complete", "error", "dispose", "dispose within", "error within", "complete within"]
    ),
    st.integers(0, 6),
    st.integers(0, 12).map(lambda n: n / 20),
)


class Watcher(Probe):
    """Ends the stream from within ``on_next``, at the item *item*."""

    within: Callable[[], None] | None = None
    item = 0
    gone = False
    late = 0

    def on_next(self, value: Any) -> None:
        self.late += self.gone or self.ended
        super().on_next(value)
        if self.within is not None and len(self.events) == self.item + 1:
            self.within()


@pytest.fixture(scope="module", autouse=True)
def _looked_through_once() -> Iterator[None]:
    """Freeze the objects that exist before the examples, so that the collector skips them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@settings(max_examples=150, deadline=None)
@given(
    names=st.lists(st.sampled_from(sorted(STAGES)), min_size=1, max_size=4),
    ending=endings,
    room=st.sampled_from([None, 0, 3]),
)
def test_a_chain_may_end_at_any_moment(names: list[str], ending: Ending, room: int | None) -> None:
    """Exactly one terminal event comes, nothing after it, and nothing is left over."""

    async def main() -> None:
        source: Subject[int] = Subject()
        stream: Observable[Any] = source
        for name in names:
            for operator in STAGES[name]():
                stream = operator(stream)
        watcher = Watcher(room)
        error = OSError("x")

        def dispose() -> None:
            watcher.gone = True
            watcher.dispose()

        ends: dict[str, Callable[[], None]] = {
            "complete": source.on_completed,
            "error": lambda: source.on_error(error),
            "dispose": dispose,
        }
        kind, _, within = ending.kind.partition(" ")
        if within:
            watcher.item, watcher.within = ending.item, ends[kind]
        watcher.watch(stream)
        loop = asyncio.get_running_loop()
        if not within:
            loop.call_later(ending.when, ends[kind])
        for n in range(8):
            source.on_next(n)
            if n % 3 == 2:
                await asyncio.sleep(0.1)
        await asyncio.sleep(5)
        watcher.open()
        await asyncio.sleep(60)
        assert 0 == watcher.late
        assert watcher.ends <= 1
        if not watcher.gone and source.is_stopped:
            assert 1 == watcher.ends
            assert watcher.error is (error if kind == "error" else None)
        if not watcher.ended:
            dispose()
        assert [] == source.observers

    async def clean() -> None:
        async with no_leaks():
            await main()

    with capture_logs():
        run_virtual(clean())
