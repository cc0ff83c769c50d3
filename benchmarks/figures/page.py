"""The report as a Markdown page; every figure on it comes from a ``FigureRecord``."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, cast

from benchmarks.figures.plots import file_name
from benchmarks.figures.record import FigureRow, by_group, show_figure, show_ratio

__all__ = ["page"]

HEAD = """\
# Benchmarks

`make bench` measures all of this, each figure beside its baseline in the same run, and
`make bench-report` writes this page and its plots from the JSON in `benchmarks/results`. A ratio is
the figure divided by the one that it is compared with. Rates differ from machine to machine far
more than ratios do. In the plots rxdispatch is blue, what it is compared with is grey, and a red
mark is a budget."""

NOTHING = "Nothing has been measured yet: run `make bench` first."

Kept = tuple[dict[str, Any], list[FigureRow]]


def page(records: list[Kept], plots: Collection[str]) -> str:
    """Return the page; *plots* are the names of the drawn files."""
    parts = [HEAD]
    if not records:
        parts.append(NOTHING)
    for about, rows in records:
        parts += _record(about, rows, plots)
    return "\n\n".join(parts) + "\n"


def _record(about: Mapping[str, Any], rows: list[FigureRow], plots: Collection[str]) -> list[str]:
    parts = [f"## {about['question'].rstrip('.')}"]
    for group, found in by_group(rows).items():
        if group:
            parts.append(f"### {group[:1].upper()}{group[1:]}")
        plot = file_name(about["name"], group)
        if plot in plots:
            parts.append(f"![{_cell(group or about['question'])}]({plot})")
        parts.append(_table(found))
    if about["controls"]:
        parts.append(f"Checked: {'; '.join(about['controls'])}.")
    parts.append(_ran_on(about))
    return parts


def _table(rows: list[FigureRow]) -> str:
    """Return a table with only the columns that have content."""
    more = list(dict.fromkeys(name for row in rows for name in row.more))
    columns: dict[str, list[str]] = {
        "case": [_cell(row.case) for row in rows],
        "at": ["" if row.x is None else f"{row.x:,.10g}" for row in rows],
        "figure": [f"{show_figure(row.value)} {row.unit}" for row in rows],
        "ratio": ["" if row.ratio is None else show_ratio(row.ratio) for row in rows],
        "of": [_cell(row.base or "") for row in rows],
        "budget": [_cell(row.budget) for row in rows],
        "": [_verdict(row) for row in rows],
    }
    for name in more:
        found = [row.more.get(name) for row in rows]
        title = name.replace("_", " ")
        columns[title] = ["" if figure is None else show_figure(figure) for figure in found]
    columns = {name: cells for name, cells in columns.items() if any(cells)}
    head = [_line(columns), _line("---" if name in _TEXT else "---:" for name in columns)]
    return "\n".join([*head, *(_line(cells) for cells in zip(*columns.values(), strict=True))])


_TEXT = ("case", "of", "budget", "")


def _line(cells: Any) -> str:
    return f"| {' | '.join(cells)} |"


def _verdict(row: FigureRow) -> str:
    if not row.budget:
        return ""
    return "**missed**" if row.verdict == "missed" else row.verdict


def _ran_on(about: Mapping[str, Any]) -> str:
    machine = about["machine"]
    facts = [
        f"`{about['name']}`, {about['at']}",
        f"{machine['processor']}, {machine['cores']} cores, {machine['system']}",
        f"load {machine['load']} at the start",
        machine["python"] + ("" if machine["profile guided"] else " without profile guidance"),
        *(f"{name} {version}" for name, version in about["versions"].items()),
        *(f"{name.replace('_', ' ')} {_setting(value)}" for name, value in settings(about).items()),
    ]
    return f"Ran as {'; '.join(facts)}."


def settings(about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings without the name of the horizontal axis."""
    return {name: value for name, value in about["settings"].items() if name != "x"}


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        named = cast("dict[str, Any]", value)
        return ", ".join(f"{name} {_setting(inner)}" for name, inner in named.items())
    if isinstance(value, list):
        return ", ".join(map(_setting, value))  # pyright: ignore[reportUnknownArgumentType]
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*").replace("_", r"\_")
