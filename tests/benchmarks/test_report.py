"""The page and the plots that are made from records."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.figures.page import page
from benchmarks.figures.plots import file_name, is_ours, kind
from benchmarks.figures.record import FigureRecord, load_record
from benchmarks.figures.report import report


def made() -> FigureRecord:
    """Return a record with a table and a curve."""
    record = FigureRecord("suite", "How fast?", quiet=True)
    record.control("every task once", True)
    record.note(server="Valkey 9", sizes=[1000, 2], x="tasks waiting")
    record.add("bare loop", 4000.0, "1/s", group="rate")
    record.add("a | b", 3000.0, "1/s", group="rate", base="bare loop", at_least=0.8, median=2000.0)
    for x in (1, 10, 100):
        record.add("bare loop", 1.5, "ms", group="cost by depth", x=x)
        record.add("ours", 3.0, "ms", group="cost by depth", x=x, base="bare loop")
    return record


def test_page(tmp_path: Path) -> None:
    """Each figure is in a table, and the page shows each plot."""
    text = page([load_record(made().save(tmp_path))], ["suite-rate.svg"])
    assert (
        r"| a \| b | 3,000 1/s | 0.75 | bare loop | >= 0.8 x bare loop | **missed** | 2,000 |"
        in text
    )
    assert "| ours | 100 | 3 ms | 2 | bare loop |" in text
    assert "](suite-rate.svg)" in text
    assert "depth.svg" not in text
    assert "Checked: every task once." in text
    assert "server Valkey 9; sizes 1,000, 2." in text


def test_empty_page() -> None:
    """A page can be made before anything has been measured."""
    assert "Nothing has been measured" in page([], [])


def test_kinds() -> None:
    """Three places make a curve, and a ratio makes bars."""
    rows = made().rows
    assert [kind(rows[:2]), kind(rows[2:]), kind(rows[:1])] == ["bars", "curves", ""]


def test_is_ours() -> None:
    """Baselines, and cases with the name of another library, are not ours."""
    record = made()
    peer = record.add("cashews, memory", 1.0, "ms")
    ours = [is_ours(row, {"bare loop"}) for row in (*record.rows[:2], peer)]
    assert ours == [False, True, False]


def test_file_name() -> None:
    """A file name has only letters, digits and dashes from its group."""
    assert file_name("suite", "") == "suite.svg"
    assert file_name("suite", "p50, a | b") == "suite-p50-a-b.svg"


def test_same_bytes(tmp_path: Path) -> None:
    """The same JSON gives the same page and plots; older plots are removed."""
    pytest.importorskip("matplotlib")
    results, first, second = (tmp_path / name for name in ("results", "first", "second"))
    made().save(results)
    first.mkdir()
    (first / "old.svg").touch()
    assert report(results, first) == ["suite-rate.svg", "suite-cost-by-depth.svg"]
    report(results, second)
    files = {path.name: path.read_bytes() for path in first.iterdir()}
    assert sorted(files) == ["index.md", "suite-cost-by-depth.svg", "suite-rate.svg"]
    assert files == {path.name: path.read_bytes() for path in second.iterdir()}
    assert b"tasks waiting" in files["suite-cost-by-depth.svg"]
