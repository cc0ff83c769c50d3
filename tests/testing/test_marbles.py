"""``cold``, ``hot`` and ``expect``: streams that are drawn as text."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from reactivex.subject import Subject

from rxdispatch.errors import ConfigError
from rxdispatch.operators.flow._batch import batch
from rxdispatch.operators.flow._map_async import map_async
from rxdispatch.testing import Probe, cold, expect, hot, run_virtual


async def upper(item: str) -> str:
    """Return the item in upper case after two ticks."""
    await asyncio.sleep(2)
    return item.upper()


def record(marbles: str, **options: Any) -> list[tuple[float, Any]]:
    """Return what a drawing emits, and when."""

    async def main() -> list[tuple[float, Any]]:
        probe = Probe().watch(cold(marbles, **options))
        await asyncio.sleep(100)
        end = [] if probe.ended_at is None else [(probe.ended_at, probe.error or "|")]
        return [*probe.events, *end]

    return run_virtual(main())


def test_each_character_is_a_tick() -> None:
    """Items, groups, numbers, spaces and the end have their ticks."""
    assert [(2.0, "a"), (4.0, "b"), (5.0, "|")] == record("--a-b|")
    assert [(1.0, "a"), (1.0, 12), (8.0, "c")] == record("-(a,12) -c")
    assert [(0.5, 7), (1.5, "|")] == record("-7-|", tick=0.5)
    assert [(1.0, [1])] == record("-x-", values={"x": [1]})
    error = OSError("away")
    assert [(1.0, "a"), (3.0, error)] == record("-a-#", error=error)


def test_coroutine_operators_can_be_drawn() -> None:
    """The result of a coroutine appears at its tick."""

    async def main() -> None:
        await expect(cold("-a-b-----|").pipe(map_async(upper)), "---A-B---|")
        await expect(cold("-a-b-|").pipe(map_async(upper, max_concurrent=1)), "---A-(B,|)")
        await expect(cold("(a,b)").pipe(map_async(upper, max_concurrent=1)), "--A-B-")
        await expect(
            cold("-a-b-c----|").pipe(batch(2, 3.0)), "---x----y-|", {"x": ["a", "b"], "y": ["c"]}
        )

    run_virtual(main())


def test_a_hot_stream_goes_on_whoever_listens() -> None:
    """A hot stream starts when it is made, with or without subscribers."""

    async def main() -> None:
        stream = hot("a-b-c-|")
        await asyncio.sleep(1)
        await expect(stream, "-b-c-|")
        await expect(stream, "|")

    run_virtual(main())


@pytest.mark.parametrize(
    ("stream", "marbles", "wanted", "got"),
    [
        ("-a-|", "-b-|", "'b' at 1, | at 3", "'a' at 1, | at 3"),
        ("-a-|", "--a|", "'a' at 2, | at 3", "'a' at 1, | at 3"),
        ("-a-|", "-a--|", "'a' at 1, | at 4", "'a' at 1, | at 3"),
        ("-a-|", "-a---", "'a' at 1", "'a' at 1, | at 3"),
        ("-a---", "-a-|", "'a' at 1, | at 3", "'a' at 1"),
        ("-a-#", "-a-|", "'a' at 1, | at 3", "'a' at 1, Exception('error') at 3"),
        ("-a-|", "-a-#", "'a' at 1, # at 3", "'a' at 1, | at 3"),
        ("-ab|", "-a-|", "'a' at 1, | at 3", "'ab' at 1, | at 3"),
        ("--", "a-", "'a' at 0", "nothing"),
    ],
)
def test_what_differs_is_told(stream: str, marbles: str, wanted: str, got: str) -> None:
    """The error shows both items, times and ends."""

    async def main() -> None:
        await expect(cold(stream), marbles)

    with pytest.raises(AssertionError) as caught:
        run_virtual(main())
    assert f"expected {wanted}\n     got {got}" == str(caught.value)


def test_an_error_may_be_drawn_as_any_one_of_a_class_or_one_like_it() -> None:
    """The test chooses how exactly the error must match."""

    async def main(error: Any) -> None:
        await expect(reactivex.throw(KeyError("x")), "#", error=error)

    alike: list[Any] = [None, KeyError, LookupError, KeyError("x")]
    for error in alike:
        run_virtual(main(error))
    others: list[Any] = [OSError, KeyError("y"), LookupError("x")]
    for error in others:
        with pytest.raises(AssertionError):
            run_virtual(main(error))


def test_nothing_is_left_of_a_stream_that_was_expected() -> None:
    """The subscription is disposed at the end of the drawing."""

    async def main() -> int:
        source: Subject[int] = Subject()
        await expect(source.pipe(rx.map(str)), "---")
        return len(source.observers)

    assert 0 == run_virtual(main())


def test_real_time_is_refused() -> None:
    """In real time, the check would fail now and then."""
    with pytest.raises(RuntimeError, match="expect must run on a VirtualTimeLoop"):
        asyncio.run(expect(reactivex.never(), "-"))


def test_bad_drawings_are_refused() -> None:
    """The functions check a drawing when they are called."""
    with pytest.raises(ValueError, match="Elements cannot be declared after"):
        cold("-|-a")
    with pytest.raises(ConfigError, match="tick must be a finite number of seconds > 0"):
        cold("-", tick=0)
