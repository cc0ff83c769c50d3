"""``edge_operator``: the operator that carries items along an edge, from one port to another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from reactivex import Observable
from reactivex import operators as rx

from rxdispatch.errors import BufferOverflowError
from rxdispatch.operators.flow._buffer_bounded import buffer_bounded
from rxdispatch.overflow import Overflow
from rxdispatch.pipelines.graph.model import Edge, Gap, GraphNode
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.output import MIN_QUEUE
from rxdispatch.pipelines.shared.stage_error import StageError, stage_error

__all__ = ["edge_operator", "queue_of"]

Stream = Observable[Envelope]


def queue_of(node: GraphNode, source: GraphNode | None = None) -> int:
    """Return how many items may wait for *node* on an edge from *source*."""
    burst = 0 if source is None else source.stage.burst
    return node.stage.queue_size or max(MIN_QUEUE, node.stage.burst, burst)


def edge_operator(
    edge: Edge, *, size: int, several: bool, gaps: bool, failed: Callable[[StageError], None]
) -> Callable[[Stream], Stream]:
    """
    Return the operator that carries items along *edge*.

    Args:
        edge: The edge.
        size: How many items may wait.
        several: Whether the values are dicts by port.
        gaps: Whether gaps go along too, because a zip downstream needs them.
        failed: Called with the failure of each item that does not fit, if ``overflow`` makes that a
            failure.
    """
    port = edge.from_port

    def goes(envelope: Envelope) -> bool:
        value = envelope.value
        return gaps if value is Gap else not several or port in value

    def chosen(envelope: Envelope) -> Envelope:
        value = envelope.value
        return envelope if value is Gap else Envelope(envelope.id, value[port])

    overflow = _overflow(edge, size, failed)

    def operator(source: Stream) -> Stream:
        going = source.pipe(rx.filter(goes))
        if several:
            going = going.pipe(rx.map(chosen))
        return going.pipe(buffer_bounded(size, overflow))

    return operator


def _overflow(edge: Edge, size: int, failed: Callable[[StageError], None]) -> Overflow[Envelope]:
    """Return the policy of *edge* for envelopes, in a form that never ends the stream."""
    policy: Any = edge.overflow
    if isinstance(policy, str) and policy != "error":
        return policy  # type: ignore[return-value]

    def divert(envelope: Envelope) -> None:
        if envelope.value is Gap:
            return
        try:
            if policy == "error":
                raise BufferOverflowError(size)
            policy(envelope.value)
        except Exception as error:
            failed(stage_error(error, envelope.id, edge.target, envelope.value))

    return divert
