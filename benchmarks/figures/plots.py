"""
Draws the figures of records as SVG; the same figures give the same bytes.

Groups with three or more places on the horizontal axis become curves, other groups with a
comparison become bars.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from benchmarks.figures.record import FigureRow, by_group, show_figure, show_ratio

__all__ = ["draw", "file_name", "is_ours", "kind"]

OURS: Final = "#1667b0"
OTHERS: Final = "#9aa0a6"
BUDGET: Final = "#c5221f"
MARKERS: Final = "osD^vP*X"
# Above this ratio the smallest bar could not be seen on a linear axis.
WIDE: Final = 20.0

STYLE: Final = {
    "svg.hashsalt": "rxdispatch",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "sans-serif"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e3e5e8",
    "figure.facecolor": "white",
}

#: Words that mark a case as not ours, even if nothing is compared with it.
_OTHERS: Final = re.compile(
    r"\b(bare|asyncio|aiostream|RxPY|streamz|rx\.|buffer_with\w*|create_task|dict|dicts|Structs|deque"
    r"|multiprocessing|SimpleQueue|queue|Lock|lock|locked|Manager|min\(\)|random\.choice|cachetools"
    r"|cashews|aiocache|redis-py|HGETALL|PING|ping|PUBLISH|HSET|arq|saq|taskiq\S*|streaq|dramatiq"
    r"|huey|rq|celery|BullMQ|alone|nothing|no observer|relist|one after the other|of the server"
    r"|heapq|list of|sorted set|SET|confirm|compare-and-swap|measured)(?!\w)",
    re.IGNORECASE,
)


def file_name(record: str, group: str) -> str:
    """Return the name of a group's file."""
    slug = re.sub(r"[^a-z0-9]+", "-", group.lower()).strip("-")
    return f"{record}-{slug}.svg" if slug else f"{record}.svg"


def kind(rows: list[FigureRow]) -> str:
    """Return ``"curves"``, ``"bars"``, or ``""`` for a group that is not drawn."""
    if len({row.unit for row in rows}) == 1 and len({row.x for row in rows} - {None}) >= 3:
        return "curves"
    return "bars" if any(row.ratio is not None for row in rows) else ""


def is_ours(row: FigureRow, bases: Collection[str | None]) -> bool:
    """Return whether a row is about this library, and not a baseline."""
    return row.case not in bases and (bool(row.budget) or _OTHERS.search(row.case) is None)


def draw(folder: Path, record: str, rows: list[FigureRow], axis: str = "") -> list[str]:
    """Draw all groups of a record; return the names of the files."""
    names: list[str] = []
    matplotlib: Any = import_module("matplotlib")
    for group, found in by_group(rows).items():
        how = kind(found)
        if not how:
            continue
        names.append(file_name(record, group))
        with matplotlib.rc_context(STYLE):
            figure = _curves(found, axis) if how == "curves" else _bars(found)
            figure.savefig(folder / names[-1], format="svg", metadata={"Date": None})
    return names


def _figure(width: float, height: float) -> tuple[Any, Any]:
    figure: Any = import_module("matplotlib.figure").Figure((width, height), layout="constrained")
    return figure, figure.subplots()


def _unit(unit: str) -> str:
    return "a second" if unit == "1/s" else unit


def _plain(value: float, _: object) -> str:
    return f"{value:,.10g}"


def _nothing(_: float, __: object) -> str:
    return ""


def _bound(row: FigureRow) -> float | None:
    """Return the place of a row's budget on the axis of the figures."""
    bound = row.at_least if row.at_least is not None else row.at_most
    if bound is None or row.judged == "value":
        return bound
    return bound * row.value / row.ratio if row.ratio else None


def _bars(rows: list[FigureRow]) -> Any:
    bases = {row.base for row in rows}
    units = list(dict.fromkeys(row.unit for row in rows))
    # Rows with a unit other than the most frequent one appear only in the table.
    unit = max(units, key=lambda each: sum(row.unit == each for row in rows))
    rows = [row for row in rows if row.unit == unit]
    figure, axes = _figure(8.5, 0.9 + 0.34 * len(rows))
    at = range(len(rows))
    values = [row.value for row in rows]
    colours = [OURS if is_ours(row, bases) else OTHERS for row in rows]
    axes.barh(at, values, color=colours, height=0.7)
    labels = [row.case if row.x is None else f"{row.case}, {row.x:,.10g}" for row in rows]
    axes.set_yticks(at, labels)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    bounds = [_bound(row) for row in rows]
    reach = [*values, *(bound for bound in bounds if bound)]
    log = min(values) > 0 and max(values) / min(values) > WIDE
    if log:
        axes.set_xscale("log")
        axes.set_xlim(min(reach) / 3, max(reach) * 1.3)
    else:
        axes.set_xlim(0, (max(reach) or 1) * 1.05)
        axes.xaxis.set_major_formatter(_plain)
    for place, (row, bound) in enumerate(zip(rows, bounds, strict=True)):
        if bound:
            axes.plot([bound, bound], [place - 0.42, place + 0.42], color=BUDGET, linewidth=2)
        ratio = "" if row.ratio is None else f"  ({show_ratio(row.ratio)} x)"
        text = f"{show_figure(row.value)}{ratio}"
        # Outside the axes, where the text overlaps neither bars nor budgets.
        axes.text(1.01, place, text, transform=axes.get_yaxis_transform(), va="center", fontsize=9)
    axes.grid(axis="x")
    axes.set_xlabel(f"{_unit(unit)}{', logarithmic' if log else ''}")
    return figure


def _curves(rows: list[FigureRow], axis: str) -> Any:
    bases = {row.base for row in rows}
    figure, axes = _figure(8.5, 4.2)
    cases: dict[str, list[FigureRow]] = {}
    for row in rows:
        cases.setdefault(row.case, []).append(row)
    seen = {True: 0, False: 0}
    for case, found in cases.items():
        ours = any(is_ours(row, bases) for row in found)
        number, seen[ours] = seen[ours], seen[ours] + 1
        points = sorted((row.x, row.value) for row in found if row.x is not None)
        if not points:
            axes.axhline(found[0].value, color=OTHERS, linestyle=":", label=case)
            continue
        axes.plot(
            [x for x, _ in points],
            [value for _, value in points],
            color=OURS if ours else OTHERS,
            alpha=max(0.35, 1 - 0.2 * number) if ours else 1.0,
            linestyle=("-", "--", "-.", ":")[number % 4],
            marker=MARKERS[number % len(MARKERS)],
            linewidth=2 if ours else 1.5,
            label=case,
            zorder=3 if ours else 2,
        )
    places = sorted({row.x for row in rows if row.x is not None})
    values = [row.value for row in rows]
    if places[0] > 0:
        axes.set_xscale("log")
        if len(places) <= 8:
            axes.set_xticks(places, [f"{place:,.10g}" for place in places])
            axes.minorticks_off()
    if min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter(_plain)
        narrow = max(values) / min(values) < 30
        axes.yaxis.set_minor_formatter(_plain if narrow else _nothing)
    axes.grid(which="both" if min(values) > 0 else "major")
    axes.set_xlabel(axis)
    axes.set_ylabel(_unit(rows[0].unit))
    legend = {"loc": "upper left", "bbox_to_anchor": (0, -0.16), "ncols": 2, "frameon": False}
    axes.legend(fontsize=9, **legend)
    return figure
