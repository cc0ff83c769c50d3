"""``GraphStreams``: builds a stream for each node of a graph."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from reactivex import Observable
from reactivex import operators as rx

from rxdispatch.errors import TaskRejectedError
from rxdispatch.operators.flow._broadcast import broadcast
from rxdispatch.pipelines.graph.checks import in_order
from rxdispatch.pipelines.graph.edges import edge_operator, queue_of
from rxdispatch.pipelines.graph.join import join_ports
from rxdispatch.pipelines.graph.model import Edge, Gap, GraphNode
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.output import Output
from rxdispatch.pipelines.shared.stage_error import StageError, stage_error
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.pipelines.stages.run_stage import Lost, interrupting, run_stage
from rxdispatch.pipelines.stages.stats import StageCounters

__all__ = ["GraphStreams"]

Stream = Observable[Envelope]


class GraphStreams:
    """
    The streams of all nodes, each built from the streams that feed it.

    Args:
        nodes: The nodes.
        edges: The edges.
        submitted: The submitted items of each entry.
        outputs: Emit the results of each port.
        wait_group: Counts the coroutines at work.
        failed: Called with each failure.
    """

    def __init__(
        self,
        nodes: Mapping[str, GraphNode],
        edges: Sequence[Edge],
        *,
        submitted: Mapping[str, Stream],
        outputs: Mapping[str, Mapping[str, Output[Any]]],
        wait_group: WaitGroup,
        failed: Callable[[StageError], None],
    ) -> None:
        self._nodes = nodes
        self._submitted = submitted
        self._failed = failed
        self._into: dict[str, list[Edge]] = defaultdict(list)
        ways: dict[str, int] = defaultdict(int)
        for edge in edges:
            self._into[edge.target].append(edge)
            ways[edge.source] += 1
        #: The results of the nodes without an outgoing edge; subscribe to them to run the graph.
        self.lasts: list[Stream] = []
        self._left: dict[str, Stream] = {}
        order = in_order(nodes, edges)
        self._gapped = _ahead_of_zip(order, nodes, self._into)
        time = asyncio.get_running_loop().time
        lost = _leaving_gaps(failed)
        for name in order:
            counters = StageCounters(name)
            counters.begin(time)
            node = nodes[name]
            stream = self._entering(node).pipe(
                # A stage changes its envelope, and other branches have the same one.
                rx.map(_copied),
                run_stage(
                    node.stage,
                    counters=counters,
                    wait_group=wait_group,
                    lost=lost,
                    ordered=node.ordered,
                    operator="graph",
                ),
                rx.do_action(_emitting(outputs[name])),
            )
            for output in outputs[name].values():
                stream = stream.pipe(output.throttle)
            if ways[name] > 1:
                share: Callable[[Stream], Stream] = broadcast(1)
                stream = stream.pipe(share)
            self._left[name] = stream
            if not ways[name]:
                self.lasts.append(stream)

    def _entering(self, node: GraphNode) -> Stream:
        """Return the items for *node*."""
        name = node.name
        if name in self._submitted:
            return self._submitted[name]
        ports: dict[str, list[Stream]] = {port: [] for port in node.inputs}
        for edge in self._into[name]:
            source = self._nodes[edge.source]
            edge_pipe = edge_operator(
                edge,
                size=queue_of(node, source),
                several=len(source.outputs) > 1,
                gaps=name in self._gapped,
                failed=self._failed,
            )
            ports[edge.to_port].append(self._left[edge.source].pipe(edge_pipe))

        def unpaired(envelope: Envelope) -> None:
            cause = TaskRejectedError("another input of the zip has no item to pair with it")
            self._failed(stage_error(cause, envelope.id, name, envelope.value))

        def join(streams: list[Stream], how: Any) -> Stream:
            return streams[0] if len(streams) == 1 else join_ports(streams, how, unpaired)

        if node.join == "merge":
            return join([stream for streams in ports.values() for stream in streams], "merge")
        return join([join(streams, "merge") for streams in ports.values()], node.join)


def _copied(envelope: Envelope) -> Envelope:
    return Envelope(envelope.id, envelope.value)


def _leaving_gaps(failed: Callable[[StageError], None]) -> Lost:
    """
    Return a function that calls *failed* with each failure, and puts a gap in its item's place.

    Without the gap, a zip downstream would pair items that do not belong together, or wait forever.
    """
    told = interrupting(failed)

    def lost(envelope: Envelope, failure: StageError | None) -> Envelope:
        if failure is not None:
            told(failure)
        envelope.value = Gap
        return envelope

    return lost


def _ahead_of_zip(
    order: Sequence[str], nodes: Mapping[str, GraphNode], into: Mapping[str, Sequence[Edge]]
) -> set[str]:
    """Return the nodes that are a zip, or that lead to one."""
    found: set[str] = set()
    for name in reversed(order):
        if nodes[name].spread and nodes[name].join == "zip":
            found.add(name)
        if name in found:
            found.update(edge.source for edge in into.get(name, ()))
    return found


def _emitting(outputs: Mapping[str, Output[Any]]) -> Callable[[Envelope], None]:
    """Return a function that emits the values of an envelope to the outputs."""
    if len(outputs) == 1:
        (output,) = outputs.values()

        def emit_one(envelope: Envelope) -> None:
            if envelope.value is not Gap:
                output.emit(envelope.value)

        return emit_one

    def emit(envelope: Envelope) -> None:
        if envelope.value is Gap:
            return
        for port, value in envelope.value.items():
            outputs[port].emit(value)

    return emit
