"""Graphs: what can be described, and how it is drawn."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

import rxdispatch as rxd


def same(*items: Any) -> Any:
    """Return the argument."""
    return items[0] if len(items) == 1 else items


def graph(*names: str) -> rxd.Graph:
    """A graph of nodes without edges."""
    g = rxd.Graph()
    for name in names:
        g.add_node(name, same)
    return g


async def awaited(*_: Any) -> None:
    """A coroutine function, where a plain function is required."""


def _id(value: Any) -> str:
    """Return a name for a case that is the same in every process, so without an address."""
    return re.sub(r" at 0x\w+", "", str(value))[:40]


BAD_NODES: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "name must be a str of 1 to 200 characters"),
    ({"name": 5}, "name must be a str of 1 to 200 characters"),
    ({"fn": None}, "fn must be callable, got None"),
    ({"max_concurrent": 0}, "max_concurrent must be an int >= 1"),
    ({"inputs": ()}, "inputs must be a tuple of port names, got ()"),
    ({"inputs": "in"}, "inputs must be a tuple of port names, got 'in'"),
    ({"inputs": ("a", "a")}, "inputs must be distinct, got 'a'"),
    ({"outputs": (5,)}, "each of outputs must be a str of 1 to 200 characters, got 5"),
    ({"outputs": ("a", "b", "a")}, "outputs must be distinct, got 'a'"),
    ({"join": "sum"}, 'join must be "merge", "zip" or "latest", got \'sum\''),
    ({"ordered": 1}, "ordered must be True or False, got 1"),
    ({"queue_size": 0}, "queue_size must be an int >= 1 or None, got 0"),
    ({"timeout": 0}, "timeout must be"),
    ({"backoff": 3}, "backoff must be a Backoff or None, got 3"),
    ({"on_error": "fail"}, 'on_error must be "stop", "skip" or callable'),
    ({"on_error": awaited}, "on_error must be a plain function"),
    ({"name": "taken"}, "nodes must have distinct names, got 'taken'"),
]


@pytest.mark.parametrize(("options", "message"), BAD_NODES, ids=_id)
def test_bad_nodes(options: dict[str, Any], message: str) -> None:
    """The error states the rule and the value, and no node is added."""
    g = graph("taken")
    before = g.to_mermaid()
    given: dict[str, Any] = {"name": "new", "fn": same, **options}
    with pytest.raises(rxd.ConfigError) as caught:
        g.add_node(**given)
    assert str(caught.value).startswith(message)
    assert before == g.to_mermaid()


BAD_EDGES: list[tuple[tuple[str, str], dict[str, Any], str]] = [
    (("x", "b"), {}, "source must be one of a, b, got 'x'"),
    (("a", "x"), {}, "target must be one of a, b, got 'x'"),
    (("a", "b"), {"from_port": "x"}, "from_port must be one of out, got 'x'"),
    (("a", "b"), {"to_port": "out"}, "to_port must be one of in, got 'out'"),
    (("a", "b"), {"overflow": "x"}, "overflow must be one of"),
    (("a", "b"), {"overflow": awaited}, "overflow must be a plain function"),
    (("b", "a"), {"overflow": "error"}, "edges must be distinct, got 'b.out -> a.in'"),
]


@pytest.mark.parametrize(("ends", "options", "message"), BAD_EDGES, ids=_id)
def test_bad_edges(ends: tuple[str, str], options: dict[str, Any], message: str) -> None:
    """The error states the rule and the value, and no edge is added."""
    g = graph("a", "b")
    g.connect("b", "a")
    before = g.to_mermaid()
    with pytest.raises(rxd.ConfigError) as caught:
        g.connect(*ends, **options)
    assert str(caught.value).startswith(message)
    assert before == g.to_mermaid()


def test_no_node() -> None:
    """An empty graph cannot run."""
    with pytest.raises(rxd.ConfigError, match=r"^a graph must have a node$"):
        rxd.Graph().validate()


def test_the_path_of_a_cycle_is_named() -> None:
    """The path begins at a node and follows the edges back to it."""
    g = graph("a", "b", "c", "d")
    for ends in ("ab", "bc", "cd", "db"):
        g.connect(*ends)
    with pytest.raises(rxd.ConfigError) as caught:
        g.run()
    assert str(caught.value).startswith("a graph must have no cycle, got ")
    path = str(caught.value.value).split(" -> ")
    assert path[0] == path[-1]
    assert {"b", "c", "d"} == set(path)
    turns = "bcdbcd"
    assert "".join(path[:-1]) in turns


def test_a_node_after_itself_is_a_cycle() -> None:
    """A node that is connected to itself is the shortest cycle."""
    g = graph("a")
    g.connect("a", "a")
    with pytest.raises(rxd.ConfigError, match=r"^a graph must have no cycle, got 'a -> a'$"):
        g.validate()


def test_a_graph_may_be_deep() -> None:
    """A graph may be deeper than Python's stack."""
    names = [str(n) for n in range(3000)]
    g = graph(*names)
    for source, target in pairwise(names):
        g.connect(source, target)
    g.validate()


@pytest.mark.parametrize("join", ["merge", "zip", "latest"])
def test_an_input_without_an_edge(join: Any) -> None:
    """If one input of a node is connected, all must be."""
    g = graph("a")
    g.add_node("b", same, inputs=("left", "right"), join=join)
    g.connect("a", "b", to_port="right")
    with pytest.raises(rxd.ConfigError) as caught:
        g.validate()
    assert "all inputs of a node must be connected, or none, got 'b.left'" == str(caught.value)
    g.connect("a", "b", to_port="left")
    g.validate()


def test_nothing_feeds_a_zip() -> None:
    """A node with several inputs cannot be an entry, as one item cannot be for all of them."""
    g = rxd.Graph()
    g.add_node("b", same, inputs=("left", "right"), join="zip")
    with pytest.raises(rxd.ConfigError) as caught:
        g.validate()
    rule = "the inputs of a node that joins by zip must be connected"
    assert f"{rule}, got 'b.left'" == str(caught.value)


def test_how_it_is_drawn() -> None:
    """The drawing has nodes and edges in the order of their definition, with escaped names."""
    g = graph("end", 'say "hi"\n|#')
    g.add_node("split", same, outputs=("odd", "even"))
    g.add_node("pair", same, inputs=("left", "right"), join="zip")
    g.connect("end", 'say "hi"\n|#')
    g.connect("end", "split")
    g.connect("split", "pair", from_port="odd", to_port="left")
    g.connect('say "hi"\n|#', "pair", to_port="right")
    drawn = (
        "flowchart LR\n"
        '    n0["end"]\n'
        '    n1["say #34;hi#34;#10;#124;#35;"]\n'
        '    n2["split"]\n'
        '    n3["pair<br/>zip"]\n'
        "    n0 --> n1\n"
        "    n0 --> n2\n"
        '    n2 -->|"odd to left"| n3\n'
        '    n1 -->|"to right"| n3\n'
    )
    assert drawn == g.to_mermaid()
    assert drawn == g.to_mermaid()
