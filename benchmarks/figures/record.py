"""
The answer to one question: figures printed beside their baselines, and saved as JSON.

Every suite gets one from the ``record`` fixture of ``conftest.py``; a script makes its own::

    with FigureRecord("bench_drain", "How fast does one process drain a board?") as record:
        record.control("every task was settled once", done == tasks)
        record.add("bare loop", 34_200, "1/s")
        record.add("pipeline", 29_800, "1/s", base="bare loop", at_least=0.80)

``benchmarks.figures.summary`` prints which budgets were met; ``benchmarks.figures.report`` writes
tables and plots.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import attrs

from benchmarks.figures.machine import describe_machine, versions

__all__ = [
    "RESULTS",
    "FigureRecord",
    "FigureRow",
    "Verdict",
    "by_group",
    "load_record",
    "show_figure",
    "show_ratio",
]

#: Where results are saved; ``BENCH_RESULTS`` names another folder.
RESULTS: Final = Path(os.environ.get("BENCH_RESULTS", Path(__file__).parents[1] / "results"))


Verdict = Literal["met", "missed", "not judged"]


@attrs.frozen(kw_only=True)
class FigureRow:
    """
    One figure.

    Attributes:
        group: Its table or plot; "" if there is only one.
        case: What was measured; with *x*, the name of the curve.
        x: The place on the curve: a depth, a size, a number of processes.
        value: The figure, in *unit*; with ``"1/s"`` larger is better, with other units smaller.
        base: The case of the same group (and *x*, if it has one there) that it is compared with.
        ratio: *value* divided by the value of *base*.
        budget: The budget in words, if there is one.
        more: Figures beside it, such as percentiles.
        at_least: The lower bound.
        at_most: The upper bound.
        judged: Whether the bounds apply to the ratio or to the value.
    """

    group: str
    case: str
    x: float | None
    value: float
    unit: str
    base: str | None
    ratio: float | None
    budget: str
    more: Mapping[str, float]
    at_least: float | None = None
    at_most: float | None = None
    judged: Literal["ratio", "value"] = "ratio"

    @property
    def verdict(self) -> Verdict:
        """Whether the figure is within its bounds; not judged without any."""
        figure = self.ratio if self.judged == "ratio" else self.value
        if figure is None or (self.at_least is None and self.at_most is None):
            return "not judged"
        low = self.at_least is None or figure >= self.at_least
        return "met" if low and (self.at_most is None or figure <= self.at_most) else "missed"

    def __str__(self) -> str:
        """Return the row of a printed table."""
        at = "" if self.x is None else f"{self.x:>11,.10g}"
        text = f"{self.case:<52}{at} {show_figure(self.value):>12} {self.unit:<6}"
        if self.ratio is not None:
            text += f" {show_ratio(self.ratio):>8} x {self.base}"
        for name, figure in self.more.items():
            text += f"  {name} {show_figure(figure)}"
        if not self.budget:
            return text
        verdict = "" if self.verdict == "not judged" else f": {self.verdict}"
        return f"{text}  [{self.budget}{verdict}]"


class FigureRecord:
    """
    The figures that answer one question.

    Args:
        name: The name of the suite's file without its ending, and of the JSON file.
        question: A text whose first paragraph is the question, such as ``__doc__``.
        packages: Distributions whose versions matter, besides the dependencies of rxdispatch.
        quiet: Whether not to print rows as they are added.
    """

    def __init__(
        self,
        name: str,
        question: str | None,
        *,
        packages: tuple[str, ...] = (),
        quiet: bool = False,
    ) -> None:
        self.name = name
        self.question = " ".join((question or "").strip().partition("\n\n")[0].split())
        self.rows: list[FigureRow] = []
        self.controls: list[str] = []
        self.settings: dict[str, object] = {}
        self._versions: dict[str, str] = versions(*packages)
        self._machine = describe_machine()
        self._quiet = quiet
        self._group: str | None = None

    def add(
        self,
        case: str,
        value: float,
        unit: str,
        *,
        group: str = "",
        x: float | None = None,
        base: str | None = None,
        budget: str = "",
        at_least: float | None = None,
        at_most: float | None = None,
        judged: Literal["ratio", "value"] | None = None,
        **more: float,
    ) -> FigureRow:
        """
        Add a figure, and print it.

        *at_least* and *at_most* bound the ratio; without *base*, or if *judged* is ``"value"``,
        they bound the value. If *budget* is empty, it is made from them.

        Raises:
            LookupError: If *base* was not added before.
        """
        ratio = None if base is None else value / self.value(base, group=group, x=x)
        judged = judged or ("value" if base is None else "ratio")
        row = FigureRow(
            group=group,
            case=case,
            x=x,
            value=value,
            unit=unit,
            base=base,
            ratio=ratio,
            budget=budget or _words(at_least, at_most, base if judged == "ratio" else None, unit),
            more=more,
            at_least=at_least,
            at_most=at_most,
            judged=judged,
        )
        self.rows.append(row)
        if not self._quiet:
            if group != self._group:
                print(f"-- {group or self.question}", flush=True)
                self._group = group
            print(row, flush=True)
        return row

    def value(self, case: str, *, group: str = "", x: float | None = None) -> float:
        """
        Return the figure of a case at *x*, or its only figure.

        Raises:
            LookupError: If there is none.
        """
        found = [row for row in self.rows if (row.case, row.group) == (case, group)]
        for row in found:
            if row.x == x:
                return row.value
        if len(found) == 1:
            return found[0].value
        raise LookupError(f"base must have been measured, got {case!r} of {group!r} at {x}")

    def control(self, what: str, holds: bool) -> None:
        """
        Record a check that makes the figures worth comparing.

        Raises:
            AssertionError: If it does not hold.
        """
        if not holds:
            raise AssertionError(f"{self.name}: it must hold that {what}")
        if what not in self.controls:
            self.controls.append(what)

    def note(self, **settings: object) -> None:
        """Add settings that the figures depend on: counts, sizes, the server."""
        self.settings |= settings

    def note_versions(self, found: Mapping[str, str]) -> None:
        """Add versions of packages that ran in another environment."""
        self._versions |= found

    def as_dict(self) -> dict[str, Any]:
        """Return the content of the JSON."""
        return {
            "name": self.name,
            "question": self.question,
            "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "machine": self._machine,
            "versions": self._versions,
            "settings": self.settings,
            "controls": self.controls,
            "rows": [attrs.asdict(row) for row in self.rows],
        }

    def save(self, folder: Path = RESULTS) -> Path:
        """Write the JSON, and return its path."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        path.write_text(json.dumps(self.as_dict(), indent=1) + "\n")
        return path

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Save, unless something went wrong or nothing was measured."""
        if kind is None and self.rows:
            self.save()


def load_record(path: Path) -> tuple[dict[str, Any], list[FigureRow]]:
    """Return the content of a JSON file without its rows, and the rows."""
    kept: dict[str, Any] = json.loads(path.read_text())
    return kept, [FigureRow(**row) for row in kept.pop("rows")]


def by_group(rows: Iterable[FigureRow]) -> dict[str, list[FigureRow]]:
    """Return rows by their group, groups in the order of their first row."""
    groups: dict[str, list[FigureRow]] = {}
    for row in rows:
        groups.setdefault(row.group, []).append(row)
    return groups


def show_figure(value: float) -> str:
    """Return a figure with four significant digits; from 1,000 on, all digits of the integer."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def show_ratio(ratio: float) -> str:
    """Return a ratio with three significant digits; from 1,000 on, all digits of the integer."""
    return f"{ratio:,.0f}" if abs(ratio) >= 1000 else f"{ratio:.3g}"


def _words(low: float | None, high: float | None, base: str | None, unit: str) -> str:
    """Return bounds in words."""
    of = f"x {base}" if base else unit
    bounds = ((">=", low), ("<=", high))
    return ", ".join(f"{sign} {show_figure(to)} {of}" for sign, to in bounds if to is not None)
