"""``Graph``: named nodes with ports, connected without a cycle."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from datetime import timedelta
from typing import Any

import attrs

from rxdispatch.backoff import Backoff
from rxdispatch.callables import check_function
from rxdispatch.errors import ConfigError
from rxdispatch.operators._on_error import OnError
from rxdispatch.overflow import Overflow, checked_overflow
from rxdispatch.pipelines.graph.checks import check_graph
from rxdispatch.pipelines.graph.mermaid import mermaid
from rxdispatch.pipelines.graph.model import (
    AsyncNodeFunction,
    Edge,
    GraphNode,
    Join,
    NodeFunction,
    checked_ports,
)
from rxdispatch.pipelines.graph.run import GraphRun
from rxdispatch.pipelines.stages.stage import checked_stage
from rxdispatch.protocols import Limit

__all__ = ["Graph"]


class Graph:
    """
    A description of work that forks and joins: nodes, ports and edges.

    A graph holds no items, and can be run any number of times, even at the same time. Nodes and
    edges that are added later do not change a run that has begun.

    An item that leaves a port goes along every edge from that port, as the same object. A node that
    mutates its item mutates it for the other nodes too, so it should copy it first. Nodes without
    an incoming edge are the entries: :meth:`GraphRun.submit` gives items to them.

    Example:
        >>> import asyncio
        >>> g = Graph()
        >>> g.add_node("number", int)
        >>> g.add_node("double", lambda n: 2 * n)
        >>> g.add_node("square", lambda n: n * n)
        >>> g.add_node("both", lambda a, b: (a, b), inputs=("left", "right"), join="zip")
        >>> g.connect("number", "double")
        >>> g.connect("number", "square")
        >>> g.connect("double", "both", to_port="left")
        >>> g.connect("square", "both", to_port="right")
        >>> async def main() -> list[tuple[int, int]]:
        ...     found = []
        ...     async with g.run() as r:
        ...         r.results("both").subscribe(found.append)
        ...         await r.submit("number", "7")
        ...     return found
        >>> asyncio.run(main())
        [(14, 49)]
    """

    def __init__(self) -> None:
        self._nodes: dict[str, GraphNode] = {}
        # A set that keeps the order; the values do not matter.
        self._edges: dict[Edge, None] = {}

    def add_node(
        self,
        name: str,
        fn: Callable[..., Any],
        *,
        max_concurrent: int | Limit = 1,
        inputs: tuple[str, ...] = ("in",),
        outputs: tuple[str, ...] = ("out",),
        join: Join = "merge",
        ordered: bool = False,
        queue_size: int | None = None,
        timeout: float | timedelta | None = None,
        backoff: Backoff | None = None,
        on_error: OnError[Any, Any] = "stop",
        executor: Executor | None = None,
    ) -> None:
        """
        Add a node.

        Args:
            name: Its name, of 1 to 200 characters.
            fn: Called with an item, returns what goes on. Coroutine functions run on the loop,
                plain ones in threads. With several *outputs* it returns a dict of values by
                port; a port that is not in it emits nothing.
            max_concurrent: How many calls may be at work at once, at least 1; or a ``Limit``.
            inputs: The names of its input ports.
            outputs: The names of its output ports.
            join: How several inputs are combined. ``"merge"`` calls *fn* with each item of any
                of them. ``"zip"`` calls it with one item of each, as arguments in the order of
                *inputs*: the first of each, then the second, and so on. ``"latest"`` calls it
                with the latest item of each whenever one arrives, once all have one.
            ordered: Emit in the order of arrival; a result that waits for its turn keeps its
                slot. Set it for the nodes ahead of a zip that work on several items at once.
            queue_size: How many items may wait on each edge to it, at least 1; by default 16, or
                as many as it or the node before it works on at once, if that is more.
            timeout: Seconds that each attempt may take.
            backoff: How often an item is attempted, and the waits in between; None for one attempt.
            on_error: What happens to an item whose last attempt failed. ``"stop"``: it goes no
                further and is emitted by the run's ``failures``; the run goes on. ``"skip"`` only
                logs it. A callable gets the item (a tuple after zip and latest) and the error and
                returns what goes on instead.
            executor: Where a plain function runs, instead of in threads of the node's own.

        Raises:
            ConfigError: If an argument breaks its rule, or there is a node of that name.
        """
        ins, outs = checked_ports("inputs", inputs), checked_ports("outputs", outputs)
        spread = len(ins) > 1 and join != "merge"
        check_function("fn", fn, *(ins if spread else ("item",)))
        stage = checked_stage(
            fn,
            name=name,
            max_concurrent=max_concurrent,
            queue_size=queue_size,
            timeout=timeout,
            backoff=backoff,
            on_error=on_error,
            executor=executor,
        )
        if join not in ("merge", "zip", "latest"):
            raise ConfigError('join must be "merge", "zip" or "latest"', join)
        if ordered.__class__ is not bool:
            raise ConfigError("ordered must be True or False", ordered)
        if name in self._nodes:
            raise ConfigError("nodes must have distinct names", name)
        work = (NodeFunction if stage.plain else AsyncNodeFunction)(fn, spread, outs)
        self._nodes[name] = GraphNode(
            stage=attrs.evolve(stage, fn=work, on_error=work.checked_replacement(on_error)),
            spread=spread,
            inputs=ins,
            outputs=outs,
            join=join,
            ordered=ordered,
        )

    def connect(
        self,
        source: str,
        target: str,
        *,
        from_port: str = "out",
        to_port: str = "in",
        overflow: Overflow[Any] = "wait",
    ) -> None:
        """
        Add an edge, with a bounded queue of its own.

        Several edges may lead to one port; their items take turns.

        Args:
            source: The node that items come from.
            target: The node that they go to.
            from_port: An output port of *source*.
            to_port: An input port of *target*.
            overflow: What happens to an item that does not fit. ``"wait"`` pauses *source*, and
                with it all of its edges; no other policy does. ``"drop_oldest"`` and
                ``"drop_newest"`` drop an item and log that. ``"error"`` makes the item a failure
                caused by a ``BufferOverflowError``. A callable gets the item.

        Raises:
            ConfigError: If there is no such node or port, or the edge exists already.
        """
        for what, name in (("source", source), ("target", target)):
            if name not in self._nodes:
                raise ConfigError(f"{what} must be one of {', '.join(self._nodes)}", name)
        for what, port, ports in (
            ("from_port", from_port, self._nodes[source].outputs),
            ("to_port", to_port, self._nodes[target].inputs),
        ):
            if port not in ports:
                raise ConfigError(f"{what} must be one of {', '.join(ports)}", port)
        edge = Edge(source, from_port, target, to_port, checked_overflow(overflow))
        if edge in self._edges:
            raise ConfigError("edges must be distinct", str(edge))
        self._edges[edge] = None

    def validate(self) -> None:
        """
        Check the graph as a whole; :meth:`run` does so too.

        Either all inputs of a node must be connected, or none. A node with none is an entry, which
        takes submitted items; a zip or latest of several inputs cannot be an entry.

        Raises:
            ConfigError: If the graph has no node, a cycle, or a node that breaks this rule.
        """
        check_graph(self._nodes, self._edges)

    def to_mermaid(self) -> str:
        """
        Return the graph as a Mermaid flowchart; equal graphs give equal text.

        Ports are shown unless they are called ``in`` and ``out``.
        """
        return mermaid(self._nodes, self._edges)

    def run(self) -> GraphRun:
        """
        Return a run of the graph as it is now; use it with ``async with``.

        Raises:
            ConfigError: As :meth:`validate`.
        """
        self.validate()
        return GraphRun(dict(self._nodes), tuple(self._edges))
