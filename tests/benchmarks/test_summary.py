"""The summary of budgets."""

from __future__ import annotations

from benchmarks.figures.record import FigureRecord
from benchmarks.figures.summary import lines


def test_lines() -> None:
    """Figures with a budget are listed, with the missed ones last, and counted."""
    record = FigureRecord("suite", "How fast?", quiet=True)
    record.add("bare", 100.0, "1/s")
    record.add("slow", 50.0, "1/s", base="bare", at_least=0.8)
    record.add("fast", 90.0, "1/s", base="bare", at_least=0.8)
    record.add("said", 70.0, "1/s", base="bare", budget="fast enough")
    found = lines((record.name, row) for row in record.rows)
    starts = [line.split(":")[0] for line in found]
    assert starts == ["met         suite", "not judged  suite", "missed      suite", "budgets"]
    assert found[2].endswith("50 1/s = 0.5 x bare  [>= 0.8 x bare]")
    assert found[3] == "budgets: 1 met, 1 not judged, 1 missed"
