"""Backoff: growth, bounds, jitter, bad arguments."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rxdispatch.backoff import Backoff
from rxdispatch.errors import ConfigError


def test_waits_grow_from_the_first_to_the_maximum() -> None:
    """Each wait is *factor* times the one before, up to the maximum."""
    backoff = Backoff(first=2.0, factor=2.0, maximum=32.0, jitter=0.0)
    assert [2.0, 4.0, 8.0, 16.0, 32.0, 32.0] == [backoff.delay(n) for n in range(1, 7)]


def test_the_defaults_are_those_of_the_contract() -> None:
    """The first wait is 2 s and doubles up to 32 s; there are five attempts and 10 % jitter."""
    backoff = Backoff()
    assert (2.0, 2.0, 32.0, 5, 0.1, None) == (
        backoff.first,
        backoff.factor,
        backoff.maximum,
        backoff.attempts,
        backoff.jitter,
        backoff.rng,
    )


@pytest.mark.parametrize("n", [10**3, 10**6, 10**400])
def test_huge_numbers_do_not_overflow(n: int) -> None:
    """The wait after very many failures is the maximum, computed at once."""
    assert Backoff(jitter=0.0).delay(n) == 32.0


def test_a_factor_of_one_stays_at_the_first_wait() -> None:
    """With a factor of 1, the wait stays the same even after very many failures."""
    assert Backoff(first=3.0, factor=1.0, jitter=0.0).delay(10**400) == 3.0


def test_no_first_wait_means_no_wait_at_all() -> None:
    """A wait of zero does not grow, and jitter adds nothing to it."""
    assert Backoff(first=0.0).delay(10**400) == 0.0


def test_the_same_seed_gives_the_same_waits() -> None:
    """Two policies with generators of the same seed compute the same waits."""
    one, two = (Backoff(rng=random.Random(7)) for _ in range(2))
    waits = [one.delay(n) for n in range(1, 6)]
    assert waits == [two.delay(n) for n in range(1, 6)]
    assert len(set(waits)) == 5


def test_durations_may_be_timedeltas() -> None:
    """A timedelta becomes float seconds."""
    backoff = Backoff(first=timedelta(seconds=1), maximum=timedelta(minutes=1))
    assert (1.0, 60.0) == (backoff.first, backoff.maximum)


@given(
    first=st.floats(0, 1e6),
    factor=st.floats(1, 1e6),
    jitter=st.floats(0, 1),
    more=st.floats(0, 1e6),
    n=st.integers(1, 10**12),
    seed=st.integers(),
)
def test_a_wait_is_never_above_the_maximum_nor_out_of_its_spread(
    first: float, factor: float, jitter: float, more: float, n: int, seed: int
) -> None:
    """The bounds hold for all settings and numbers of failures."""
    backoff = Backoff(first, factor, first + more, jitter=jitter, rng=random.Random(seed))
    plain = Backoff(first, factor, first + more, jitter=0.0).delay(n)
    wait = backoff.delay(n)
    assert 0 <= wait <= backoff.maximum
    assert plain * (1 - jitter) - 1e-6 <= wait <= plain * (1 + jitter) + 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"first": -1}, "first must be a finite number of seconds >= 0, got -1"),
        ({"first": True}, "first must be a finite number of seconds >= 0, got True"),
        ({"maximum": float("inf")}, "maximum must be a finite number of seconds >= 0, got inf"),
        ({"first": 60}, "maximum must be >= first (60 s), got 32.0"),
        ({"factor": 0.5}, "factor must be a finite number >= 1, got 0.5"),
        ({"factor": float("inf")}, "factor must be a finite number >= 1, got inf"),
        ({"factor": 10**20_000}, "factor must be a finite number >= 1, got an object of type int"),
        ({"factor": True}, "factor must be a finite number >= 1, got True"),
        ({"factor": "2"}, "factor must be a finite number >= 1, got '2'"),
        (
            {"factor": timedelta(seconds=2)},
            "factor must be a finite number >= 1, got datetime.timedelta(seconds=2)",
        ),
        ({"attempts": 0}, "attempts must be an int >= 1 or None, got 0"),
        ({"attempts": 2.0}, "attempts must be an int >= 1 or None, got 2.0"),
        ({"jitter": 1.5}, "jitter must be a number from 0 to 1, got 1.5"),
        ({"jitter": float("nan")}, "jitter must be a number from 0 to 1, got nan"),
        ({"rng": 7}, "rng must be a random.Random or None, got 7"),
    ],
)
def test_a_bad_argument_is_refused(arguments: dict[str, Any], message: str) -> None:
    """The error states the rule first, then the value."""
    with pytest.raises(ConfigError) as caught:
        Backoff(**arguments)
    assert message == str(caught.value)


@pytest.mark.parametrize("n", [0, -1, 1.0, True])
def test_failures_count_from_one(n: Any) -> None:
    """The count of failures starts at 1, as there is no wait before the first failure."""
    with pytest.raises(ConfigError, match="n must be an int >= 1"):
        Backoff().delay(n)


def test_attempts_without_end() -> None:
    """None means no limit; a number includes the first attempt."""
    assert Backoff(attempts=None).goes_on(10**400)
    assert [True, True, False] == [Backoff(attempts=3).goes_on(n) for n in (1, 2, 3)]
    assert 32.0 == Backoff(attempts=None, jitter=0.0).delay(10**400)
