"""The output of ``top``: a summary line, and tables of boards and pools."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from rxdispatch.cli.nodes.fleet_table import age
from rxdispatch.cli.text import number, visible
from rxdispatch.cli.top.view import BoardRow, TopView
from rxdispatch.node import Mode, NodeStatus

__all__ = ["show_top", "top_line"]


def top_line(view: TopView) -> Text:
    """Return the state of the server, the counts of each board and the feed in one line."""
    text = Text(no_wrap=True, overflow="ellipsis")
    if view.away is None:
        text.append("server answers", "bold green")
    else:
        text.append(f"server unreachable for {age(view.away)}; old values:", "bold red")
    for row in view.boards:
        counts = row.counts
        text.append(
            f"  {visible(row.name)}: {counts.ready:,} ready, {counts.claimed:,} claimed,"
            f" {counts.done:,} done, {counts.dead:,} dead, lag {_lag(row.lag)}"
        )
    if view.pools:
        nodes = sum(sum(row.statuses.values()) for row in view.pools)
        text.append(f"  {number(nodes, 'node')}, feed {view.mode.value}")
    return text


def show_top(view: TopView) -> RenderableType:
    """Return a line about the server, a table of boards, and one of pools if there is a fleet."""
    head = top_line(_bare(view))
    parts: list[RenderableType] = [head]
    if view.boards:
        parts += [Text(), _boards(view)]
    if view.pools:
        parts += [Text(), _pools(view)]
    elif not view.boards:
        parts += [Text(), Text("no nodes; name the boards to show", style="dim")]
    return Group(*parts)


def _bare(view: TopView) -> TopView:
    return TopView(view.away, view.mode, (), ())


def _boards(view: TopView) -> Table:
    table = _table("board", "scheduled", "ready", "claimed", "done", "dead", "in/s", "out/s", "lag")
    for row in view.boards:
        table.add_row(*_board(row), style="dim" if view.away is not None else "")
    return table


def _board(row: BoardRow) -> list[Text]:
    counts = row.counts
    return [
        Text(visible(row.name), no_wrap=True, overflow="ellipsis"),
        Text(f"{counts.scheduled:,}"),
        Text(f"{counts.ready:,}"),
        Text(f"{counts.claimed:,}"),
        Text(f"{counts.done:,}"),
        Text(f"{counts.dead:,}", "red" if counts.dead else ""),
        Text(_rate(row.rate_in)),
        Text(_rate(row.rate_out)),
        Text(_lag(row.lag), "yellow" if row.lag >= 60 else ""),
    ]


def _pools(view: TopView) -> Table:
    statuses = [status.value for status in NodeStatus]
    table = _table("pool", *statuses, "jobs", "room")
    normal = view.mode is Mode.NORMAL
    table.title = Text(f"nodes, feed {view.mode.value}", "bold green" if normal else "bold red")
    table.title_justify = "left"
    for row in view.pools:
        many = (f"{row.statuses[status]:,}" for status in NodeStatus)
        name = Text(visible(row.name), no_wrap=True, overflow="ellipsis")
        table.add_row(name, *many, f"{row.jobs:,}", f"{row.room:,}")
    return table


def _table(first: str, *rest: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    table.add_column(first)
    for name in rest:
        table.add_column(name, justify="right")
    return table


def _rate(rate: float | None) -> str:
    return "-" if rate is None else f"{rate:,.1f}"


def _lag(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 10 else age(int(seconds))
