"""The comparison of ratios with the stored baselines."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from benchmarks.guard import BASELINE, Bound, failures, load, measure, store
from benchmarks.guard_cases import GuardCase

STORED = {"drain": Bound(2.0, 1.8), "read": Bound(0.5, 3.0)}


def test_nothing_wrong() -> None:
    """A ratio within its bounds, or a faster one, passes."""
    assert failures({"drain": 3.5, "read": 0.1}, STORED) == {}


@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_slower(factor: float) -> None:
    """Twice as slow fails, and the message has case, ratio, baseline and bound."""
    wrong = failures({"drain": 2.0 * factor, "read": 0.5}, STORED)
    assert list(wrong) == ["drain"]
    for part in ("drain", f"{2.0 * factor:.2f} x", f"{factor:.2f} times", "2.00", "3.60"):
        assert part in wrong["drain"]


def test_unknown() -> None:
    """A case that is only in one of the two is reported."""
    wrong = failures({"drain": 2.0, "new": 1.0}, STORED)
    assert list(wrong) == ["new", "read"]


def test_store(tmp_path: Path) -> None:
    """New ratios are stored; a chosen tolerance stays."""
    path = tmp_path / "baseline.json"
    store({"drain": 2.0, "read": 0.5}, path)
    path.write_text(path.read_text().replace("1.8", "2.5", 1))
    store({"drain": 1.0, "read": 0.25}, path)
    assert load(path) == {"drain": Bound(1.0, 2.5), "read": Bound(0.25)}


def test_kept_baseline() -> None:
    """The committed baseline can be read, and any slow-down by three would fail."""
    stored = load(BASELINE)
    assert len(stored) >= 7
    slow = {case: bound.ratio * 3 for case, bound in stored.items()}
    assert sorted(failures(slow, stored)) == sorted(stored)


def test_measure() -> None:
    """The ratio is ours to the baseline's in each round; the first round warms up."""
    ours, base = iter((9.0, 2.0, 4.0, 30.0)), iter((1.0, 1.0, 1.0, 1.0))

    async def our_seconds() -> float:
        return next(ours)

    async def base_seconds() -> float:
        return next(base)

    found = asyncio.run(measure([GuardCase("drain", our_seconds, base_seconds)], 3))
    assert found == {"drain": [2.0, 4.0, 30.0]}
