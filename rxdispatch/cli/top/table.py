"""The output of ``top``: a summary line, and tables of boards, kinds of tasks, and pools."""

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
            f" {counts.done:,} done, {counts.dead:,} dead, lag {_lag(row.lag)}{_kinds_line(row)}"
        )
    if view.pools:
        nodes = sum(sum(row.statuses.values()) for row in view.pools)
        text.append(f"  {number(nodes, 'node')}, feed {view.mode.value}")
    return text


def show_top(view: TopView) -> RenderableType:
    """Return a line about the server, and tables of boards, kinds and pools, if there are any."""
    head = top_line(_bare(view))
    parts: list[RenderableType] = [head]
    if view.boards:
        parts += [Text(), _boards(view)]
        if any(map(_has_kinds, view.boards)):
            parts += [Text(), _kinds(view)]
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


def _has_kinds(row: BoardRow) -> bool:
    """Whether the kinds of a board say more than its counts."""
    return bool(row.more_kinds) or any(kind.name != "default" or kind.paused for kind in row.kinds)


def _kinds(view: TopView) -> Table:
    table = _table("board", "kind", "unfinished", "change/s", "")
    table.columns[1].justify = "left"
    for row in filter(_has_kinds, view.boards):
        board = Text(visible(row.name), no_wrap=True, overflow="ellipsis")
        style = "dim" if view.away is not None else ""
        for kind in row.kinds:
            table.add_row(
                board,
                Text(visible(kind.name), no_wrap=True, overflow="ellipsis"),
                Text(f"{kind.unfinished:,}"),
                Text(_change(kind.change)),
                Text("paused" if kind.paused else "", "yellow"),
                style=style,
            )
        if row.more_kinds:
            more = Text(f"({number(row.more_kinds, 'more kind')})", "dim")
            table.add_row(board, more, Text(f"{row.more_unfinished:,}"), "", "", style=style)
    return table


def _kinds_line(row: BoardRow) -> str:
    if not _has_kinds(row):
        return ""
    parts = [
        f"{visible(kind.name)} {kind.unfinished:,}{' paused' if kind.paused else ''}"
        for kind in row.kinds
    ]
    if row.more_kinds:
        parts.append(f"{number(row.more_kinds, 'more kind')} {row.more_unfinished:,}")
    return f", unfinished: {', '.join(parts)}"


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


def _change(rate: float | None) -> str:
    return f"{rate:+,.1f}" if rate else _rate(rate)


def _lag(seconds: float) -> str:
    return f"{seconds:.1f}s" if seconds < 10 else age(int(seconds))
