"""The table of a fleet."""

from __future__ import annotations

from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from rxdispatch.cli.nodes.fleet_table import headline, show_fleet
from rxdispatch.cli.nodes.fleet_view import FleetView, NodeView
from rxdispatch.node import Mode, Node, NodeStatus


def view(*nodes: Node, **other: Any) -> FleetView:
    """Return a view of these nodes."""
    facts: dict[str, Any] = {
        "mode": Mode.NORMAL,
        "stale": None,
        "pool": None,
        "known": len(nodes),
        "statuses": {status: sum(n.status is status for n in nodes) for status in NodeStatus},
        "rate": 1234.5,
        "gaps": 0,
        "catch_ups": 1,
        "nodes": tuple(NodeView(node, 7) for node in nodes),
        "hidden": 0,
    }
    return FleetView(**{**facts, **other})


def printed(shown: FleetView, *, width: int = 200) -> str:
    """Return what is printed."""
    console = Console(file=StringIO(), width=width, legacy_windows=False)
    with console.capture() as capture:
        console.print(show_fleet(shown, console))
    return capture.get()


def test_headline() -> None:
    """The headline has the mode, the freshness, nodes by status, the rate and the problems."""
    node = Node("n", pool="gpu", status=NodeStatus.DRAINING)
    assert (
        "NORMAL, current  1 node: 0 ready, 1 draining, 0 suspect  1,234.5 changes/s"
        "  0 gaps, 1 catch-up" == headline(view(node)).plain
    )
    lost = view(node, mode=Mode.LOCAL_ONLY, stale=75, pool="gpu", known=3, gaps=2, catch_ups=2)
    assert (
        "LOCAL_ONLY, stale for 1m  1 node of 3 in gpu: 0 ready, 1 draining, 0 suspect"
        "  1,234.5 changes/s  2 gaps, 2 catch-ups" == headline(lost).plain
    )


@pytest.mark.parametrize(
    ("jobs", "capacity", "bar"),
    [
        (0, 8, ".........."),
        (1, 1000, "#........."),
        (4, 8, "#####....."),
        (999, 1000, "#########."),
        (8, 8, "##########"),
        (9, 8, "##########"),
        (0, 0, ".........."),
    ],
)
def test_bar(jobs: int, capacity: int, bar: str) -> None:
    """Even a single job is visible, and so is the last free slot."""
    text = printed(view(Node("n", capacity=capacity, current_jobs=jobs)))
    text = text.replace("\N{FULL BLOCK}", "#").replace("\N{LIGHT SHADE}", ".")
    assert f" {bar} {jobs:,}/{capacity:,} " in text


def test_values_are_short_and_harmless() -> None:
    """A few values are shown, cut and escaped, so that a node is one line."""
    state = {"load": 0.123456, "list": [1, 2], "map": {"a": 1}, "more": 1}
    node = Node("n\x1b[2J\n", labels={"zone": "z" * 500}, state=state)
    text = printed(view(node))
    assert "load=0.1235 list=[2] map={1} +1" in text
    assert "n\\x1b[2J\\n" in text
    assert "zone=zzzz" in text
    assert "z" * 30 not in text
    assert "\x1b" not in text
    assert 4 == len(text.splitlines())
    narrow = printed(view(*[Node(f"node-{i}" * 9, state=state) for i in range(5)]), width=60)
    assert 3 + 5 == len(narrow.splitlines())


def test_heartbeats_and_the_rest() -> None:
    """The table shows how long a node was silent, if that is known, and counts the hidden nodes."""
    rows = (NodeView(Node("a"), 60), NodeView(Node("b"), 7200), NodeView(Node("c"), None))
    shown = view(nodes=rows, hidden=1234)
    text = printed(shown)
    assert " 1m" in text
    assert " 2h" in text
    assert " -" in text
    assert "and 1,234 more" in text
