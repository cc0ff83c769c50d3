"""``mermaid``: draws a graph as a Mermaid flowchart."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from rxdispatch.pipelines.graph.model import Edge, GraphNode

__all__ = ["mermaid"]


def mermaid(nodes: Mapping[str, GraphNode], edges: Iterable[Edge]) -> str:
    """
    Return the flowchart, with nodes and edges in the order in which they were added.

    Nodes are numbered, because some names, such as ``end``, are keywords of Mermaid.
    """
    lines = ["flowchart LR"]
    numbers: dict[str, str] = {}
    for number, (name, node) in enumerate(nodes.items()):
        numbers[name] = f"n{number}"
        several = len(node.inputs) > 1
        note = f"<br/>{node.join}" if several and node.join != "merge" else ""
        lines.append(f'    n{number}["{_escaped(name)}{note}"]')
    for edge in edges:
        label = _label(edge)
        arrow = f'-->|"{label}"|' if label else "-->"
        lines.append(f"    {numbers[edge.source]} {arrow} {numbers[edge.target]}")
    return "\n".join(lines) + "\n"


def _label(edge: Edge) -> str:
    """Return the ports that are not the default ones."""
    source = _escaped(edge.from_port) if edge.from_port != "out" else ""
    target = _escaped(edge.to_port) if edge.to_port != "in" else ""
    if source and target:
        return f"{source} to {target}"
    return source or (f"to {target}" if target else "")


def _escaped(text: str) -> str:
    """Return *text* with all special characters as Mermaid's entities."""
    return "".join(c if c.isalnum() or c in " _-./:," else f"#{ord(c)};" for c in text)
