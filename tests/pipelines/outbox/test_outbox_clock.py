"""The clock that measures the age of events."""

from __future__ import annotations

import pytest

from rxdispatch.pipelines.outbox.clock import ClockRow, OutboxClock, boot_id, steady

SET = 1.8e9
"""The time of a wall clock that has been set, in seconds since 1970."""


def resumed(row: ClockRow, *, steady: float, wall: float, boot: str = "b") -> float:
    """Return the time of a clock that resumes from *row* with these readings."""
    clock = OutboxClock(lambda: steady, lambda: wall, lambda: boot)
    clock.resume(row)
    return clock.now()


def test_it_begins_at_zero_and_never_goes_back() -> None:
    """The clock follows the steady clock, whatever the wall clock does."""
    now, wall = 50.0, SET
    clock = OutboxClock(lambda: now, lambda: wall, lambda: "b")
    assert 0.0 == clock.now()
    now, wall = 57.0, SET - 1e6
    assert 7.0 == clock.now()
    assert ClockRow("b", 57.0, SET - 1e6, 7.0) == clock.row()


@pytest.mark.parametrize(
    ("row", "now", "expected"),
    [
        # In another process of the same boot, the steady clock counts, although the other was set.
        (ClockRow("b", 10.0, 100.0, 5.0), (30.0, SET, "b"), 25.0),
        # After another boot, the wall clock counts, but never backwards.
        (ClockRow("a", 900.0, SET, 5.0), (3.0, SET + 60, "b"), 65.0),
        (ClockRow("a", 900.0, SET, 5.0), (3.0, SET - 60, "b"), 5.0),
        (ClockRow("a", 900.0, 100.0, 5.0), (3.0, SET, "b"), 5.0),
        (ClockRow("a", 900.0, SET, 5.0), (3.0, 100.0, "b"), 5.0),
        # If boots have no ids, the wall clock counts.
        (ClockRow("", 10.0, SET, 5.0), (30.0, SET + 60, ""), 65.0),
        # The id is wrong if the steady clock shows less than before.
        (ClockRow("b", 10.0, SET, 5.0), (3.0, SET + 60, "b"), 65.0),
    ],
)
def test_it_goes_on_where_it_was(
    row: ClockRow, now: tuple[float, float, str], expected: float
) -> None:
    """The clock resumes at its last time, plus the time that has passed if it is known."""
    assert expected == resumed(row, steady=now[0], wall=now[1], boot=now[2])


def test_the_clocks_of_the_host() -> None:
    """The steady clock does not go back, and the boot has one id."""
    assert steady() <= steady()
    assert boot_id() == boot_id()
