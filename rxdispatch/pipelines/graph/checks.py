"""Checks of a whole graph: it has no cycle, and its input ports are connected."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from graphlib import CycleError, TopologicalSorter

from rxdispatch.errors import ConfigError
from rxdispatch.pipelines.graph.model import Edge, GraphNode

__all__ = ["check_graph", "in_order"]


def check_graph(nodes: Mapping[str, GraphNode], edges: Collection[Edge]) -> None:
    """
    Check a graph as a whole.

    Raises:
        ConfigError: If it has no node, a cycle, a node whose inputs are connected only in part, or
            a zip or latest of several inputs that are not connected.
    """
    if not nodes:
        raise ConfigError("a graph must have a node")
    in_order(nodes, edges)
    fed: dict[str, set[str]] = {name: set() for name in nodes}
    for edge in edges:
        fed[edge.target].add(edge.to_port)
    for name, node in nodes.items():
        missing = [port for port in node.inputs if port not in fed[name]]
        if not missing:
            continue
        if fed[name]:
            raise ConfigError(
                "all inputs of a node must be connected, or none", f"{name}.{missing[0]}"
            )
        if node.join != "merge" and len(node.inputs) > 1:
            rule = f"the inputs of a node that joins by {node.join} must be connected"
            raise ConfigError(rule, f"{name}.{missing[0]}")


def in_order(nodes: Iterable[str], edges: Iterable[Edge]) -> list[str]:
    """
    Return the names of the nodes, each after the nodes that feed it.

    Raises:
        ConfigError: If there is a cycle; the error names its nodes.
    """
    sorter: TopologicalSorter[str] = TopologicalSorter(dict.fromkeys(nodes, ()))
    for edge in edges:
        sorter.add(edge.target, edge.source)
    try:
        return list(sorter.static_order())
    except CycleError as error:
        raise ConfigError("a graph must have no cycle", " -> ".join(error.args[1])) from None
