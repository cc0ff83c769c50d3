"""``print_summary``: prints a report as text."""

from __future__ import annotations

from typing import Final

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rxdispatch.cli.demo.report import Report
from rxdispatch.cli.text import number, visible

__all__ = ["print_summary"]

_EXAMPLES: Final = 3


def print_summary(report: Report, console: Console) -> None:
    """Print the headline, the totals, the largest files and the dead letters."""
    console.print()
    console.print(_headline(report))
    console.print(_totals(report))
    if report.largest:
        console.print()
        console.print(_largest(report))
    if report.dead:
        console.print()
        console.print(Text(f"Dead letters ({len(report.dead):,})", style="bold"))
        for line in _dead(report):
            console.print(line, no_wrap=True, overflow="ellipsis", crop=True)
    for folder in report.tree.unread:
        console.print(Text(f"Folder that could not be read: {visible(folder)}", style="yellow"))


def _headline(report: Report) -> Text:
    tally = report.tally
    what = {
        "complete": ("Done", "bold green"),
        "interrupted": ("Interrupted, partial result", "bold yellow"),
        "incomplete": ("Files are missing", "bold red"),
    }[report.state]
    text = Text.assemble(what, ": ")
    if tally.finished or report.remaining:
        text.append(
            f"{number(tally.finished, 'file')} in {tally.seconds:.1f} s,"
            f" {tally.rate:,.0f} files/s"
            f" with {number(report.workers, 'worker process', 'worker processes')}"
        )
        if report.before:
            text.append(f", after {report.before:,} in earlier runs")
    else:
        text.append(
            "nothing was left to do, as earlier runs dispatched"
            f" {number(len(report.tree.files), 'file')}"
        )
    return text


def _totals(report: Report) -> Table:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(justify="right")
    grid.add_column()
    totals = report.totals
    rows = [
        (len(report.tree.files), "files"),
        (len(report.counts), "counted"),
        (len(report.dead), "dead letters"),
        (report.remaining, "not done yet") if report.remaining else None,
        (totals.functions, "functions"),
        (totals.classes, "classes"),
        (totals.lines, "lines"),
        (report.tally.retries, "retries"),
    ]
    for row in rows:
        if row is not None:
            grid.add_row(f"  {row[0]:,}", row[1])
    return grid


def _largest(report: Report) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2), title_justify="left")
    table.title = Text("Largest modules", style="bold not italic")
    for name in ("lines", "functions", "classes"):
        table.add_column(name, justify="right", header_style="dim")
    table.add_column("file", header_style="dim", overflow="ellipsis", no_wrap=True)
    for task_id, counts in report.largest:
        table.add_row(
            f"{counts.lines:,}",
            f"{counts.functions:,}",
            f"{counts.classes:,}",
            Text(visible(task_id)),
        )
    return table


def _dead(report: Report) -> list[Text]:
    lines: list[Text] = []
    for reason, letters in report.reasons.items():
        lines.append(Text.assemble(f"  {len(letters):,}  ", (visible(reason), "red")))
        for letter in letters[:_EXAMPLES]:
            error = letter.error.partition(": ")[2] if letter.reason == "failed" else letter.error
            lines.append(
                Text.assemble(f"     {visible(letter.task.id)}", (f"  {visible(error)}", "dim"))
            )
        if len(letters) > _EXAMPLES:
            lines.append(Text(f"     and {len(letters) - _EXAMPLES:,} more", style="dim"))
    return lines
