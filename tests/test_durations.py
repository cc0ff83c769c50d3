"""Durations are float seconds or a timedelta, wherever a user gives one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.boards.engine import Options
from rxdispatch.testing import cold, expect, run_virtual

SECOND = timedelta(seconds=1)

SETTINGS: list[tuple[Callable[..., Any], list[str]]] = [
    (rxd.StoreSettings, ["timeout", "attempt_timeout", "ping_interval", "start_timeout"]),
    (
        rxd.FeedSettings,
        [
            *("pulse_interval", "check_timeout", "max_staleness"),
            *("max_snapshot_age", "tombstone_ttl", "mass_lapse_delay"),
        ],
    ),
    (rxd.Settings, ["grace"]),
    (rxd.Task, ["delay", "ttl", "timeout"]),
]


@pytest.mark.parametrize(
    ("make", "name"), [(make, name) for make, names in SETTINGS for name in names]
)
def test_attributes(make: Callable[..., Any], name: str) -> None:
    """A timedelta is kept as float seconds, so that it can be computed with."""
    payload = [None] if make is rxd.Task else []
    kept = getattr(make(*payload, **{name: SECOND}), name)
    assert (1.0, float) == (kept, type(kept))


def test_options_of_boards() -> None:
    """So is the time for which a board remembers ids."""
    assert Options(None, 1.0, None) == Options.of(None, SECOND, None)
    assert repr(1.0) == repr(Options.of(None, SECOND, None).remember)


async def test_leases_and_delays() -> None:
    """Claims, claiming operators and settlements take them too."""
    board: rxd.MemoryBoard[int] = rxd.MemoryBoard("b")
    await board.submit(rxd.Task(n, id=str(n)) for n in range(4))
    (claim,) = await board.claim(1, lease=SECOND)
    assert [] == await board.renew([claim], SECOND)
    assert 1.0 == claim.release(SECOND).delay
    assert 1.0 == claim.retry("again", SECOND).delay
    outcome: rxd.Outcome[int, None] = rxd.Outcome(claim, "retry")
    delay: Any = SECOND
    outcome.delay = delay
    settlement = outcome.settlement()
    assert settlement is not None
    assert repr(1.0) == repr(settlement.delay)
    await board.settle(settlement)
    claims = board.claims(prefetch=1, lease=SECOND)
    chosen = reactivex.of("2").pipe(ops.claim_each(board, lease=SECOND))
    won = [await rxd.run(stream.pipe(rx.take(1))) for stream in (claims, chosen)]
    assert ["1", "2"] == [one.task.id for one in won if one is not None]


def test_marbles() -> None:
    """So do the ticks of drawings."""

    async def main() -> float:
        await expect(cold("-a|", tick=SECOND), "-a|", tick=SECOND)
        return asyncio.get_running_loop().time()

    assert 3.0 == run_virtual(main())
