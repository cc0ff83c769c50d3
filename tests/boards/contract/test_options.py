"""Options are stored with the board by the first handle that gives them."""

from __future__ import annotations

from typing import Any

import pytest

from rxdispatch.errors import ConfigError
from rxdispatch.task import Task
from tests.boards.places import Bench, Place, counts


async def conflict(bench: Bench, **options: Any) -> str:
    """Return the error that refuses a handle with *options*."""
    with pytest.raises(ConfigError) as caught:
        await bench.elsewhere(**options).submit(Task(0, id="refused"))
    assert isinstance(caught.value, ValueError)
    return str(caught.value)


async def test_a_handle_that_gives_none_takes_what_is_stored(place: Place) -> None:
    """The options of the first handle apply to the second too."""
    async with place.bench() as bench:
        await bench.board(max_crashes=0, dead_limit=1, remember=50.0).submit(Task(0, id="a"))
        other = bench.elsewhere()
        (claim,) = await other.claim(1, lease=10.0)
        await bench.later(20)
        assert [] == await other.claim(1)
        assert (0, 0, 0, 0, 1) == await counts(other)
        await other.submit([Task(0, id="b"), Task(0, id="c")])
        await other.cancel("b")
        assert [x.task.id async for x in other.dead_letters()] == ["b"]
        (claim,) = await other.claim(1)
        await other.settle([claim.done()])
        assert ("c",) == (await other.submit(Task(0, id="c"))).duplicates


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"max_crashes": 2}, {"max_crashes": 3}),
        ({"remember": 1.5}, {"remember": 2.0}),
        ({"dead_limit": 100}, {"dead_limit": 99}),
    ],
)
async def test_another_value_is_refused(
    place: Place, first: dict[str, Any], second: dict[str, Any]
) -> None:
    """The error states the rule and both values, and nothing is written."""
    async with place.bench() as bench:
        board = bench.board(**first)
        await board.submit(Task(0, id="a"))
        ((name, stored),) = first.items()
        text = await conflict(bench, **second)
        assert text.startswith(f"{name} must be {stored}, as stored with")
        assert text.endswith(f"got {second[name]}")
        assert (0, 1, 0, 0, 0) == await counts(board)
        # The same value is no conflict.
        await bench.elsewhere(**first).submit(Task(0, id="b"))
        assert (0, 2, 0, 0, 0) == await counts(board)


async def test_options_add_up(place: Place) -> None:
    """A later handle may give an option that no handle gave before, which is then stored."""
    async with place.bench() as bench:
        await bench.board(max_crashes=2).submit(Task(0, id="a"))
        await bench.elsewhere(dead_limit=7).submit(Task(0, id="b"))
        await bench.elsewhere(dead_limit=7, max_crashes=2).submit(Task(0, id="c"))
        assert "dead_limit must be 7" in await conflict(bench, dead_limit=8)
        assert "max_crashes must be 2" in await conflict(bench, max_crashes=1, dead_limit=7)


async def test_a_default_given_is_stored(place: Place) -> None:
    """A default that is given explicitly is stored like any other value."""
    async with place.bench() as bench:
        await bench.board(max_crashes=3).submit(Task(0, id="a"))
        assert "max_crashes must be 3" in await conflict(bench, max_crashes=4)


@pytest.mark.parametrize(
    "options",
    [
        {"max_crashes": -1},
        {"max_crashes": 1.0},
        {"max_crashes": True},
        {"dead_limit": 0},
        {"dead_limit": "7"},
        {"remember": -1.0},
        {"remember": float("nan")},
        {"remember": float("inf")},
    ],
)
async def test_bad_options(place: Place, options: dict[str, Any]) -> None:
    """Bad options are refused when the handle is made."""
    async with place.bench() as bench:
        ((name, value),) = options.items()
        with pytest.raises(ConfigError, match=rf"^{name} must be") as caught:
            bench.board(**options)
        assert str(caught.value).endswith(f"got {value!r}")
        bench.board()


@pytest.mark.parametrize("name", ["", "x" * 201, 5, None, "\ud800"])
async def test_bad_names(place: Place, name: Any) -> None:
    """The name of a board is 1 to 200 characters that UTF-8 can encode."""
    async with place.bench() as bench:
        with pytest.raises(ConfigError, match=r"^name must be"):
            bench.another(name)


@pytest.mark.parametrize("mark", ["{", "}", "\x00", "\n", "\r", "\x1b", "\x7f", "\x9b", "\u2028"])
async def test_names_that_no_pattern_could_tell_apart(place: Place, mark: str) -> None:
    """Braces would end the hash tag early, and ACLs take no control characters."""
    async with place.bench() as bench:
        with pytest.raises(ConfigError, match=r"^name must have no braces and no control char"):
            bench.another(f"jobs{mark}x")


@pytest.mark.parametrize("name", ["x" * 200, "a b", "*", "a:b", "[a-z]?", "\\", "%3A", "ü"])
async def test_odd_names(place: Place, name: str) -> None:
    """Names are taken literally; boards of different names share nothing."""
    async with place.bench() as bench:
        odd, plain = bench.another(name), bench.board()
        assert name == odd.name
        before = await counts(odd)
        await odd.submit(Task(0, id="a"))
        await plain.submit(Task(0, id="a"))
        assert before[1] + 1 == (await counts(odd))[1]
        assert (0, 1, 0, 0, 0) == await counts(plain)
        (claim,) = await odd.claim(1)
        assert [True] == await odd.settle([claim.done()])
        assert (0, 1, 0, 0, 0) == await counts(plain)


async def test_the_name_shows(place: Place) -> None:
    """The repr contains the name."""
    async with place.bench() as bench:
        assert repr(bench.name) in repr(bench.board())
