"""``prioritize``: order, the end, and demand."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from operator import itemgetter
from typing import Any

import pytest
import reactivex
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._prioritize import prioritize
from rxdispatch.testing import Probe, Supply, run_virtual
from tests.dropped import dropped
from tests.operators.flow.runs import to_list


def itself(item: Any) -> Any:
    """Return the item as its key."""
    return item


async def busy(key: Any, *pushes: Any) -> list[Any]:
    """Push without room, then make some, and complete."""
    probe = Probe(room=0)
    source: Subject[Any] = Subject()
    probe.watch(source.pipe(prioritize(key, size=100)))
    for item in pushes:
        source.on_next(item)
    probe.open(100)
    source.on_completed()
    return probe.notifications


# ---------------------------------------------------------------- order


def test_items_pass_while_nothing_below_is_busy() -> None:
    """Without a valve below, no item waits, so none is reordered."""
    stream = reactivex.range(50).pipe(prioritize(itself, size=1))
    assert list(range(50)) == run_virtual(to_list(stream))


def test_the_highest_goes_first() -> None:
    """The keys may be of any type that compares."""
    assert [9, 5, 3, 1, "|"] == run_virtual(busy(itself, 3, 9, 1, 5))
    assert ["c", "b", "a", "|"] == run_virtual(busy(itself, "b", "c", "a"))
    assert [1.5, 0.5, -math.inf, "|"] == run_virtual(busy(itself, -math.inf, 1.5, 0.5))
    assert [(2, 1), (1, 9), "|"] == run_virtual(busy(itself, (1, 9), (2, 1)))


def test_equals_keep_their_order() -> None:
    """Items themselves are never compared."""
    items = [(n % 3, object()) for n in range(30)]
    expected = sorted(items, key=lambda item: -item[0])
    assert [*expected, "|"] == run_virtual(busy(itemgetter(0), *items))


async def test_what_comes_later_may_still_go_first() -> None:
    """The operator chooses when there is room."""
    probe = Probe(room=0)
    source: Subject[int] = Subject()
    probe.watch(source.pipe(prioritize(itself, size=10)))
    for n in (1, 5):
        source.on_next(n)
    probe.open(1)
    for n in (9, 0):
        source.on_next(n)
    probe.open(9)
    assert [5, 9, 1, 0] == probe.notifications


def test_keys_without_an_order_lose_nothing() -> None:
    """NaN has no order with other keys, but no item is lost."""
    got = run_virtual(busy(itself, math.nan, 1.0, float("nan"), 2.0, math.nan))
    assert 6 == len(got)
    assert {1.0, 2.0} <= set(got)


def test_each_item_keeps_its_context() -> None:
    """An item keeps its context, whatever its place."""
    name: ContextVar[int] = ContextVar("name", default=-1)

    async def main() -> list[int]:
        seen: list[int] = []
        probe = Probe(room=0, on_item=lambda _: seen.append(name.get()))
        source: Subject[int] = Subject()
        probe.watch(source.pipe(prioritize(itself, size=9)))

        async def push(n: int) -> None:
            name.set(n)
            source.on_next(n)

        for n in (1, 2):
            await asyncio.create_task(push(n))
        probe.open(2)
        return seen

    assert [2, 1] == run_virtual(main())


# ---------------------------------------------------------------- demand


def test_its_valve_closes_when_so_many_wait() -> None:
    """A source that can wait is asked for as many items as the operator may choose from."""

    async def main() -> list[Any]:
        paced = Supply(range(100))
        probe = Probe(room=0)
        probe.watch(paced.pipe(prioritize(itself, size=7)))
        sent = paced.sent
        probe.open(2)
        return [sent, paced.sent, probe.notifications]

    with capture_logs() as logs:
        assert [7, 9, [6, 5]] == run_virtual(main())
    assert [] == logs


def test_a_source_that_cannot_wait_is_kept_and_named() -> None:
    """Nothing is dropped, and the log names the operator once."""

    async def main() -> list[Any]:
        probe = Probe(room=0)
        source: Subject[int] = Subject()
        probe.watch(source.pipe(prioritize(itself, size=2)))
        for n in range(5):
            source.on_next(n)
        probe.open(9)
        return probe.notifications

    with capture_logs() as logs:
        assert [4, 3, 2, 1, 0] == run_virtual(main())
    assert [
        {"event": "no_demand", "operator": "prioritize", "limit": 2, "log_level": "warning"}
    ] == logs


# ---------------------------------------------------------------- the end


async def test_completion_waits_for_what_waits() -> None:
    """Waiting items come in the order of rank, before the completion."""
    probe = Probe(room=0)
    probe.watch(reactivex.of(1, 3, 2).pipe(prioritize(itself, size=9)))
    assert [] == probe.notifications
    probe.open(2)
    assert [3, 2] == probe.notifications
    probe.open(2)
    assert [3, 2, 1, "|"] == probe.notifications


def test_an_error_passes_at_once() -> None:
    """Waiting items are dropped and logged."""
    error = OSError("x")

    async def main() -> list[Any]:
        probe = Probe(room=0)
        source: Subject[int] = Subject()
        probe.watch(source.pipe(prioritize(itself, size=9)))
        source.on_next(1)
        source.on_error(error)
        probe.open(5)
        return probe.notifications

    with capture_logs() as logs:
        assert [error] == run_virtual(main())
    assert 1 == dropped(logs)


def test_a_key_that_raises_or_does_not_compare_ends_the_stream() -> None:
    """The stream ends with the error of the key."""

    def fail(_: Any) -> Any:
        raise OSError("x")

    with capture_logs() as logs:
        (one,) = run_virtual(busy(fail, 1))
        (two,) = run_virtual(busy(itself, 1, "a", 2))
        (three,) = run_virtual(busy(itself, []))
    assert [OSError, TypeError, TypeError] == [type(one), type(two), type(three)]
    assert 4 == dropped(logs)


async def test_disposal_drops_what_waits() -> None:
    """Disposal from within ``on_next`` does so too; the source is disposed."""
    probe = Probe(room=0, on_item=lambda _: probe.dispose())
    source: Subject[int] = Subject()
    probe.watch(source.pipe(prioritize(itself, size=9)))
    for n in (1, 2, 3):
        source.on_next(n)
    probe.open(5)
    probe.open(5)
    assert [3] == probe.notifications
    assert [] == source.observers


def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription keeps items of its own."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        stream = source.pipe(prioritize(itself, size=9))
        one, two = Probe(room=0), Probe()
        one.watch(stream)
        stream.subscribe(two)
        source.on_next(1)
        source.on_next(2)
        one.open(5)
        source.on_completed()
        return [one.notifications, two.notifications]

    assert [[2, 1, "|"], [1, 2, "|"]] == run_virtual(main())


# ---------------------------------------------------------------- properties


@settings(max_examples=100, deadline=None)
@given(
    steps=st.lists(
        st.one_of(st.integers(0, 3).map(lambda n: ("push", n)), st.just(("take", 0))), max_size=60
    )
)
def test_it_takes_what_a_stable_sort_would(steps: list[tuple[str, int]]) -> None:
    """The operator matches a model: a list that is sorted each time."""

    async def main() -> None:
        probe = Probe(room=0)
        source: Subject[tuple[int, int]] = Subject()

        def first(item: tuple[int, int]) -> int:
            return item[0]

        probe.watch(source.pipe(prioritize(first, size=100)))
        model: list[tuple[int, int]] = []
        expected: list[tuple[int, int]] = []
        for number, (what, key) in enumerate(steps):
            if what == "push":
                model.append((key, number))
                source.on_next((key, number))
            else:
                probe.open(1)
                probe.close()
                if model:
                    model.sort(key=lambda item: (-item[0], item[1]))
                    expected.append(model.pop(0))
            assert expected == probe.notifications

    run_virtual(main())


# ---------------------------------------------------------------- arguments


def test_a_bad_argument_is_refused() -> None:
    """A bad argument is refused when the operator is made."""

    async def later(_: Any) -> int:
        return 1

    wrong: Any = 1
    cases: tuple[tuple[Any, int, str], ...] = (
        (wrong, 1, "key must be callable, got 1"),
        (later, 1, "key must be a plain function"),
        (itself, 0, "size must be an int >= 1, got 0"),
    )
    for key, size, message in cases:
        with pytest.raises(ConfigError, match=message):
            prioritize(key, size=size)
