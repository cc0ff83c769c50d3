"""``conflate``: the newest item of each key, the end, and demand."""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from typing import Any

import pytest
import reactivex
from hypothesis import given, settings
from hypothesis import strategies as st
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._conflate import conflate
from rxdispatch.testing import Probe, Supply, run_virtual
from tests.dropped import dropped
from tests.operators.flow.runs import to_list


def letter(item: str) -> str:
    """Return the key of an item like ``"a1"``."""
    return item[0]


async def busy(operator: Any, *pushes: Any) -> list[Any]:
    """Push without room, then make some, and complete."""
    probe = Probe(room=0)
    source: Subject[Any] = Subject()
    probe.watch(source.pipe(operator))
    for item in pushes:
        source.on_next(item)
    probe.open(100)
    source.on_completed()
    return probe.notifications


# ---------------------------------------------------------------- values


def test_items_pass_while_nothing_below_is_busy() -> None:
    """Without a valve below, no item is replaced."""
    assert list(range(50)) == run_virtual(to_list(reactivex.range(50).pipe(conflate())))


def test_only_the_newest_is_left() -> None:
    """The number of replaced items is logged once, as info."""
    with capture_logs() as logs:
        assert [4, "|"] == run_virtual(busy(conflate(), 1, 2, 3, 4))
    assert [
        {
            "event": "items_dropped",
            "operator": "conflate",
            "reason": "replaced",
            "items": 3,
            "total": 3,
            "log_level": "info",
        }
    ] == logs


def test_each_key_keeps_its_place_in_line() -> None:
    """A key keeps its place, however often its item is replaced."""
    with capture_logs():
        pushes = ["a1", "b1", "a2", "c1", "b2", "a3"]
        assert ["a3", "b2", "c1", "|"] == run_virtual(busy(conflate(key=letter), *pushes))


async def test_a_key_that_has_left_goes_to_the_end_of_the_line() -> None:
    """A key that comes again after it has left is a new one."""
    probe = Probe(room=0)
    source: Subject[str] = Subject()
    probe.watch(source.pipe(conflate(key=letter)))
    source.on_next("a1")
    source.on_next("b1")
    probe.open(1)
    source.on_next("a2")
    probe.open(5)
    assert ["a1", "b1", "a2"] == probe.notifications


def test_items_may_be_merged() -> None:
    """The older item is the first argument, and nothing is dropped."""

    def merge(old: str, new: str) -> str:
        return old + new[1:]

    with capture_logs() as logs:
        got = run_virtual(busy(conflate(key=letter, merge=merge), "a1", "b2", "a3", "a4"))
    assert ["a134", "b2", "|"] == got
    assert [] == logs


def test_none_is_an_item_as_any_other() -> None:
    """None may also be a key."""
    with capture_logs() as logs:
        assert [None, "|"] == run_virtual(busy(conflate(), None, None))
        assert [None, 1, "|"] == run_virtual(busy(conflate(key=lambda n: n), None, 1))
    assert 1 == dropped(logs)


def test_the_newest_item_brings_its_context() -> None:
    """The context of the newest item replaces that of the older one too."""
    name: ContextVar[str] = ContextVar("name", default="nobody")

    async def main() -> list[str]:
        seen: list[str] = []
        probe = Probe(room=0, on_item=lambda _: seen.append(name.get()))
        source: Subject[int] = Subject()
        probe.watch(source.pipe(conflate()))

        async def push(who: str) -> None:
            name.set(who)
            source.on_next(1)

        for who in ("ann", "bob"):
            await asyncio.create_task(push(who))
        probe.open(2)
        source.on_completed()
        return seen

    with capture_logs():
        assert ["bob"] == run_virtual(main())


# ---------------------------------------------------------------- demand


def test_the_source_never_waits() -> None:
    """A source that can wait is pulled to its end, and no warning is logged."""

    async def main() -> int:
        paced = Supply(range(100))
        probe = Probe(room=0)
        probe.watch(paced.pipe(conflate()))
        probe.open(1)
        assert [99, "|"] == probe.notifications
        return paced.sent

    with capture_logs() as logs:
        assert run_virtual(main()) == 100
    assert ["info"] == [entry["log_level"] for entry in logs]


# ---------------------------------------------------------------- the end


@pytest.mark.parametrize("which", ["key", "merge"])
def test_a_function_that_raises_ends_the_stream(which: str) -> None:
    """The stream ends at once, with the error of the function."""
    error = OSError("x")

    def fail(*_: Any) -> Any:
        raise error

    with capture_logs() as logs:
        operator = conflate(key=fail) if which == "key" else conflate(merge=fail)
        assert [error] == run_virtual(busy(operator, 1, 2))
    assert {"key": 1, "merge": 2}[which] == dropped(logs)


def test_a_key_that_cannot_be_hashed_ends_the_stream() -> None:
    """The stream ends with Python's error for an unhashable key."""

    def unhashable(_: Any) -> Any:
        return []

    with capture_logs():
        (error,) = run_virtual(busy(conflate(key=unhashable), 1))
    assert isinstance(error, TypeError)


def test_an_error_passes_at_once() -> None:
    """Waiting items are dropped, with a warning."""
    error = OSError("x")

    async def main() -> list[Any]:
        probe = Probe(room=0)
        source: Subject[str] = Subject()
        probe.watch(source.pipe(conflate(key=letter)))
        source.on_next("a1")
        source.on_next("b1")
        source.on_error(error)
        probe.open(5)
        return probe.notifications

    with capture_logs() as logs:
        assert [error] == run_virtual(main())
    assert [("error", 2, "warning")] == [
        (entry["reason"], entry["items"], entry["log_level"]) for entry in logs
    ]


async def test_disposal_drops_what_waits() -> None:
    """Disposal from within ``on_next`` does so too; the source is disposed."""
    probe = Probe(room=0, on_item=lambda _: probe.dispose())
    source: Subject[str] = Subject()
    probe.watch(source.pipe(conflate(key=letter)))
    for item in ("a1", "b1", "c1"):
        source.on_next(item)
    probe.open(5)
    probe.open(5)
    assert ["a1"] == probe.notifications
    assert [] == source.observers


async def test_an_item_that_an_item_leads_to_waits_its_turn() -> None:
    """A subscriber that is inside ``on_next`` is busy."""
    source: Subject[int] = Subject()
    got: list[Any] = []

    def on_next(n: int) -> None:
        got.append(("begin", n))
        if n == 0:
            source.on_next(1)
            source.on_next(2)
        got.append(("end", n))

    with capture_logs():
        source.pipe(conflate()).subscribe(on_next)
        source.on_next(0)
        source.on_completed()
    assert [("begin", 0), ("end", 0), ("begin", 2), ("end", 2)] == got


def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription keeps items of its own."""

    async def main() -> list[Any]:
        source: Subject[int] = Subject()
        stream = source.pipe(conflate())
        one, two = Probe(room=0), Probe()
        one.watch(stream)
        stream.subscribe(two)
        source.on_next(1)
        source.on_next(2)
        one.open(5)
        source.on_completed()
        return [one.notifications, two.notifications]

    with capture_logs():
        assert [[2, "|"], [1, 2, "|"]] == run_virtual(main())


# ---------------------------------------------------------------- properties


@settings(max_examples=100, deadline=None)
@given(steps=st.lists(st.one_of(st.sampled_from("abc"), st.integers(1, 3)), max_size=40))
def test_it_is_what_its_description_says(steps: list[Any]) -> None:
    """The operator matches a model: a dict that keeps the order of its keys."""

    async def main() -> None:
        probe = Probe(room=0)
        source: Subject[tuple[str, int]] = Subject()

        def key(item: tuple[str, int]) -> str:
            return item[0]

        probe.watch(source.pipe(conflate(key=key)))
        model: dict[str, tuple[str, int]] = {}
        expected: list[Any] = []
        replaced = 0
        for number, step in enumerate(steps):
            if isinstance(step, int):
                probe.open(step)
                expected.extend(model.pop(key) for key in list(model)[:step])
                probe.close()
            else:
                replaced += step in model
                model[step] = (step, number)
                source.on_next((step, number))
            assert expected == probe.notifications
        source.on_completed()
        probe.open(9)
        assert [*expected, *model.values(), "|"] == probe.notifications
        assert replaced == dropped(logs)

    with capture_logs() as logs:
        run_virtual(main())


# ---------------------------------------------------------------- arguments


def test_a_bad_argument_is_refused() -> None:
    """A bad argument is refused when the operator is made."""

    async def later(*_: Any) -> Any:
        """Return the item later."""

    wrong: Any = 1
    for arguments, message in (
        ({"key": wrong}, "key must be callable or None, got 1"),
        ({"merge": wrong}, "merge must be callable or None, got 1"),
        ({"key": later}, "key must be a plain function"),
        ({"merge": later}, "merge must be a plain function"),
    ):
        with pytest.raises(ConfigError, match=message):
            conflate(**arguments)
