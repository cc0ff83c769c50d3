"""
Write ``docs/benchmarks/`` from the kept JSON: ``python -m benchmarks.report [results [folder]]``.

It needs matplotlib, which ``pip install -e .[bench]`` brings; ``make bench-report`` does both.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.page import page
from benchmarks.plots import draw
from benchmarks.record import RESULTS, load_record

__all__ = ["FOLDER", "main", "report"]

FOLDER = Path(__file__).parents[1] / "docs" / "benchmarks"


def report(results: Path, folder: Path) -> list[str]:
    """Write page and plots; return the names of the plots. Plots of before are removed."""
    records = [load_record(path) for path in sorted(results.glob("*.json"))]
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    plots: list[str] = []
    for about, rows in records:
        plots += draw(folder, about["name"], rows, about["settings"].get("x", ""))
    (folder / "index.md").write_text(page([each for each in records if each[1]], plots))
    return plots


def main(results: Path = RESULTS, folder: Path = FOLDER) -> None:
    """Write the report, and say what was written."""
    print(f"{folder / 'index.md'}, {len(report(results, folder))} plots")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
