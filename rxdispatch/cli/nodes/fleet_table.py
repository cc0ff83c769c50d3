"""The output of ``nodes watch``: a summary line and a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from rxdispatch.cli.nodes.fleet_view import UNITS, FleetView, NodeView
from rxdispatch.cli.text import number, visible
from rxdispatch.node import Mode, Node, NodeStatus

__all__ = ["MARGIN", "age", "headline", "show_fleet"]

MARGIN: Final = 4
"""How many lines of :func:`show_fleet` are not rows of nodes."""

_BAR: Final = 10
_VALUES: Final = 3
_LONGEST: Final = 24
_COLORS: Final = {
    NodeStatus.READY: "green",
    NodeStatus.DRAINING: "yellow",
    NodeStatus.SUSPECT: "red",
}


def headline(view: FleetView) -> Text:
    """Return the feed's mode and freshness, and the numbers of nodes and gaps, in one line."""
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(view.mode.value, "bold green" if view.mode is Mode.NORMAL else "bold red")
    if view.stale is None:
        text.append(", current")
    else:
        text.append(f", stale for {age(view.stale)}", "yellow")
    count = sum(view.statuses.values())
    text.append(f"  {number(count, 'node')}")
    if view.pool is not None:
        text.append(f" of {view.known:,} in {visible(view.pool)}")
    text.append(": ")
    for at, (status, many) in enumerate(view.statuses.items()):
        text.append(", " if at else "")
        text.append(f"{many:,} {status.value}", _COLORS[status] if many else "dim")
    text.append(f"  {view.rate:,.1f} changes/s")
    text.append(f"  {number(view.gaps, 'gap')}", "yellow" if view.gaps else "")
    text.append(f", {number(view.catch_ups, 'catch-up')}")
    return text


def show_fleet(view: FleetView, console: Console) -> RenderableType:
    """
    Return headline and table.

    Args:
        view: The values to show.
        console: The console of the output; some consoles can show only ASCII.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name in ("id", "pool", "status", "jobs", "labels", "state"):
        table.add_column(name)
    for name in ("version", "heartbeat"):
        table.add_column(name, justify="right")
    for row in view.nodes:
        table.add_row(*_row(row, console.options.ascii_only))
    parts: list[RenderableType] = [headline(view), Text(), table]
    if view.hidden:
        parts.append(Text(f"and {view.hidden:,} more", style="dim"))
    return Group(*parts)


def age(seconds: int) -> str:
    """
    Return a duration in its largest unit.

    Example:
        >>> age(59), age(150), age(7300), age(200_000)
        ('59s', '2m', '2h', '2d')
    """
    for size, unit in UNITS.items():
        if seconds >= size:
            return f"{seconds // size}{unit}"
    return f"{seconds}s"


def _row(view: NodeView, ascii_only: bool) -> list[Text]:
    node = view.node
    return [
        _cell(node.id),
        _cell(node.pool),
        Text(node.status.value, _COLORS[node.status], no_wrap=True),
        _jobs(node, ascii_only),
        _cell(_pairs(node.labels)),
        _cell(_pairs(node.state)),
        Text(f"{node.version:,}", no_wrap=True),
        Text("-" if view.silence is None else age(view.silence), no_wrap=True),
    ]


def _cell(text: str) -> Text:
    # Long text is cut and not wrapped, because a node has one line.
    return Text(visible(text), no_wrap=True, overflow="ellipsis")


def _jobs(node: Node, ascii_only: bool) -> Text:
    share = min(1.0, node.current_jobs / node.capacity) if node.capacity else 0.0
    # The bar shows even a single job, and even the last free slot.
    full = min(_BAR, round(share * _BAR))
    if 0 < share < 1:
        full = min(_BAR - 1, max(1, full))
    on, off = ("#", ".") if ascii_only else ("\N{FULL BLOCK}", "\N{LIGHT SHADE}")
    color = "red" if share == 1 else "cyan"
    return Text.assemble(
        (on * full, color),
        (off * (_BAR - full), "dim"),
        f" {node.current_jobs:,}/{node.capacity:,}",
        no_wrap=True,
    )


def _pairs(mapping: Mapping[str, Any]) -> str:
    shown = [f"{_cut(key)}={_short(mapping[key])}" for key in list(mapping)[:_VALUES]]
    if len(mapping) > _VALUES:
        shown.append(f"+{len(mapping) - _VALUES}")
    return " ".join(shown)


def _short(value: object) -> str:
    """Return a short form of a value; of a container or bytes, only the size."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return f"{{{len(cast('dict[object, object]', value))}}}"
    if isinstance(value, list):
        return f"[{len(cast('list[object]', value))}]"
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return _cut(str(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"
