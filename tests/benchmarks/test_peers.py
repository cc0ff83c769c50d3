"""``python -m benchmarks.peers``, without any peer installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.figures.record import load_record
from benchmarks.peers.systems import ROOT, SYSTEMS


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run the suite, with its results in *folder*."""
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.peers", *words],
        cwd=ROOT,
        env=os.environ | {"BENCH_RESULTS": str(folder)},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


@pytest.mark.serial
def test_it_measures_rxdispatch_alone(tmp_path: Path) -> None:
    """Figures and checks are saved as JSON."""
    done = run(tmp_path, "--only", "rxdispatch", "--quick")

    assert done.returncode == 0, done.stdout + done.stderr
    kept, rows = load_record(tmp_path / "peers.json")
    assert kept["controls"] == [
        "each task was drained once, and nothing was left",
        "each task of an open loop was handled once",
    ]
    assert {row.case for row in rows} == {"rxdispatch"}
    assert [row.group for row in rows] == [
        "submit",
        "drain",
        "capacity, one at a time",
        "latency at 50 % of its capacity",
        "latency at 80 % of its capacity",
        "latency at 200/s",
        "p99 latency at 80 % of its capacity",
    ]
    assert all(row.value > 0 for row in rows)
    assert kept["settings"]["server"].startswith("Valkey")


def test_a_system_of_that_name_must_exist(tmp_path: Path) -> None:
    """An unknown name is an error that lists the known names."""
    done = run(tmp_path, "--only", "bulmq")

    assert done.returncode == 1
    assert "got bulmq" in done.stderr
    assert not (tmp_path / "peers.json").exists()


def test_every_system_has_a_name_and_a_title_of_its_own() -> None:
    """Names and titles identify the rows, so each is unique."""
    assert len({system.name for system in SYSTEMS}) == len(SYSTEMS)
    assert len({system.title for system in SYSTEMS}) == len(SYSTEMS)
