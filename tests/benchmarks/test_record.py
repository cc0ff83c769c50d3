"""Records of figures, and their verdicts."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.figures.record import FigureRecord, by_group, load_record


def made() -> FigureRecord:
    """Return an empty record that prints nothing."""
    return FigureRecord("suite", "\nHow fast\nis it?\n\nMeasured so.", quiet=True)


def test_question() -> None:
    """The question is the first paragraph, in one line."""
    assert made().question == "How fast is it?"


def test_ratio() -> None:
    """A ratio is that of the figure to its base."""
    record = made()
    record.add("bare", 200.0, "1/s")
    assert record.add("ours", 150.0, "1/s", base="bare").ratio == 0.75


def test_ratio_at() -> None:
    """The base is the one at the same place, or else the only one."""
    record = made()
    record.add("bare", 2.0, "ms", x=1)
    assert record.add("ours", 6.0, "ms", x=8, base="bare").ratio == 3.0
    record.add("bare", 3.0, "ms", x=8)
    assert record.add("later", 6.0, "ms", x=8, base="bare").ratio == 2.0


def test_base_of_another_group() -> None:
    """A figure of another group is no base."""
    record = made()
    record.add("bare", 2.0, "ms", group="a")
    with pytest.raises(LookupError, match="'bare' of 'b'"):
        record.add("ours", 2.0, "ms", group="b", base="bare")


@pytest.mark.parametrize(
    ("bounds", "verdict", "words"),
    [
        ({"at_least": 0.75}, "met", ">= 0.75 x bare"),
        ({"at_least": 0.8}, "missed", ">= 0.8 x bare"),
        ({"at_most": 0.7}, "missed", "<= 0.7 x bare"),
        ({"at_least": 0.7, "at_most": 0.8}, "met", ">= 0.7 x bare, <= 0.8 x bare"),
        ({"at_least": 100, "judged": "value"}, "met", ">= 100 1/s"),
        ({"at_least": 2000, "judged": "value"}, "missed", ">= 2,000 1/s"),
        ({"budget": "as fast as can be"}, "not judged", "as fast as can be"),
        ({}, "not judged", ""),
    ],
)
def test_verdict(bounds: dict[str, object], verdict: str, words: str) -> None:
    """Bounds apply to the ratio, or to the value if asked; the verdict says them in words."""
    record = made()
    record.add("bare", 200.0, "1/s")
    row = record.add("ours", 150.0, "1/s", base="bare", **bounds)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert (verdict, words) == (row.verdict, row.budget)


def test_verdict_without_base() -> None:
    """Without a base, the bounds apply to the value."""
    assert made().add("bytes", 241.0, "B", at_most=240).verdict == "missed"


def test_control() -> None:
    """A check that does not hold fails the suite."""
    record = made()
    record.control("it holds", True)
    with pytest.raises(AssertionError, match="every item once"):
        record.control("every item once", False)
    assert record.controls == ["it holds"]


def test_kept(tmp_path: Path) -> None:
    """A saved record is the same when it is loaded."""
    record = made()
    record.add("bare", 2.0, "ms", group="a", p99=7.0)
    record.add("ours", 4.0, "ms", group="a", base="bare", at_most=3)
    record.note(server="Valkey")
    about, rows = load_record(record.save(tmp_path))
    assert rows == record.rows
    assert about["settings"] == {"server": "Valkey"}


def test_by_group() -> None:
    """Groups come in the order of their first row."""
    record = made()
    for case, group in (("1", "b"), ("2", "a"), ("3", "b")):
        record.add(case, 1.0, "ms", group=group)
    cases = {group: [row.case for row in rows] for group, rows in by_group(record.rows).items()}
    assert list(cases.items()) == [("b", ["1", "3"]), ("a", ["2"])]
