"""
Prints which budgets were met: ``python -m benchmarks.figures.summary [folder]``.

It reads the saved records and shows each figure that has a budget, the missed ones last.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from benchmarks.figures.record import (
    RESULTS,
    FigureRow,
    Verdict,
    load_record,
    show_figure,
    show_ratio,
)

__all__ = ["lines", "main", "one_line"]

ORDER: tuple[Verdict, ...] = ("met", "not judged", "missed")


def one_line(suite: str, row: FigureRow) -> str:
    """Return a row of the summary."""
    at = "" if row.x is None else f" at {row.x:,.10g}"
    case = f"{row.group}: {row.case}{at}" if row.group else f"{row.case}{at}"
    ratio = "" if row.ratio is None else f" = {show_ratio(row.ratio)} x {row.base}"
    figure = f"{show_figure(row.value)} {row.unit}{ratio}"
    return f"{row.verdict:<10}  {suite}: {case}\n{'':<12}{figure}  [{row.budget}]"


def lines(rows: Iterable[tuple[str, FigureRow]]) -> list[str]:
    """Return the summary of rows, each with the name of its suite."""
    judged = [(suite, row) for suite, row in rows if row.budget]
    judged.sort(key=lambda each: ORDER.index(each[1].verdict))
    counts = Counter(row.verdict for _, row in judged)
    total = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ORDER)
    return [*(one_line(suite, row) for suite, row in judged), f"budgets: {total}"]


def main(folder: Path = RESULTS) -> None:
    """Print the summary of a folder."""
    rows = [
        (path.stem, row) for path in sorted(folder.glob("*.json")) for row in load_record(path)[1]
    ]
    print("\n".join(lines(rows)))


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))
