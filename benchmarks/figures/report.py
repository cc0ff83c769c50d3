"""
Writes the figures of the last run as tables and plots.

``python -m benchmarks.figures.report [results [folder]]`` reads the JSON that ``FigureRecord``
saved, and writes Markdown and SVG into ``docs/_build/benchmarks``, which git ignores. It needs
matplotlib, which ``make bench-report`` installs first.
"""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks.figures.page import page
from benchmarks.figures.plots import draw
from benchmarks.figures.record import RESULTS, load_record

__all__ = ["FOLDER", "main", "report"]

FOLDER = Path(__file__).parents[2] / "docs" / "_build" / "benchmarks"


def report(results: Path, folder: Path) -> list[str]:
    """Write the page and the plots, remove older plots, and return the names of the new ones."""
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
    """Write the report and print where it is."""
    plots = report(results, folder)
    print(f"{folder / 'index.md'}: {len(plots)} plots of what {results} holds")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
