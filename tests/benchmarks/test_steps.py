"""The steps of ``bench_steps.py``, which name files and functions of the library."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from benchmarks.boards.bench_steps import BELOW, FEED, WORK

ROOT = Path(__file__).parents[2]
OURS = sorted(
    {
        place
        for steps in (WORK, FEED)
        for name, places in steps.items()
        if name not in BELOW
        for place in places
    }
)


@pytest.mark.parametrize("place", OURS)
def test_a_step_names_what_exists(place: str) -> None:
    """A file that was renamed would be counted for another step."""
    file, _, function = place.partition(":")
    found = [
        path
        for folder in ("rxdispatch", "operators", "benchmarks")
        for path in (ROOT / folder).rglob(file.rpartition("/")[2])
        if f"/{path}".endswith(f"/{file}")
    ]
    assert len(found) == 1, found
    if function:
        owner, _, name = function.partition(".<locals>")[0].rpartition(".")
        path = found[0].relative_to(ROOT).with_suffix("")
        module = import_module(
            ".".join(path.parts).replace("operators.", "rxdispatch.operators.", 1)
        )
        assert hasattr(getattr(module, owner) if owner else module, name)
