"""Overflow policies, and the count of what is dropped."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError
from rxdispatch.overflow import Drops, checked_overflow, checked_size, reason_of
from rxdispatch.testing import run_virtual


def test_policies_and_functions_are_taken() -> None:
    """Policies and functions are accepted, and have a name for the log."""
    for policy in ("wait", "drop_oldest", "drop_newest", "error"):
        given: Any = policy
        assert policy == checked_overflow(given) == reason_of(given)
    assert print is checked_overflow(print)
    assert "overflow" == reason_of(print)
    assert 3 == checked_size(3)


@pytest.mark.parametrize("wrong", ["drop", 1, None, ("wait",)])
def test_anything_else_is_refused(wrong: Any) -> None:
    """The error lists the policies."""
    with pytest.raises(ConfigError, match="overflow must be one of wait, drop_oldest, "):
        checked_overflow(wrong)


def test_a_burst_is_told_after_a_second_or_at_the_end() -> None:
    """Drops are logged after a second or at the end, whichever is first, with the total."""

    async def main() -> list[Any]:
        loop = asyncio.get_running_loop()
        drops = Drops("x", "drop_oldest")
        drops.arm(loop)
        told: list[Any] = []
        for pause in (0.5, 0.6, 10.0):
            drops.count()
            drops.arm(loop)
            await asyncio.sleep(pause)
            told.append(len(logs))
        drops.count()
        drops.report()
        drops.report()
        drops.lost(0)
        drops.lost(5)
        return [told, [(e["reason"], e["items"], e["total"]) for e in logs]]

    with capture_logs() as logs:
        told, entries = run_virtual(main())
    assert [0, 1, 2] == told
    assert [
        ("drop_oldest", 2, 2),
        ("drop_oldest", 1, 3),
        ("drop_oldest", 1, 4),
        ("error", 5, 9),
    ] == entries


def test_drops_that_are_expected_are_no_warning() -> None:
    """Expected drops are logged as info, unless an error is their reason."""
    with capture_logs() as logs:
        drops = Drops("conflate", "replaced", expected=True)
        drops.count()
        drops.lost(1)
    assert ["info", "warning"] == [entry["log_level"] for entry in logs]
