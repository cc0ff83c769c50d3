"""``GraphRun``: a running graph."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import partial
from types import TracebackType
from typing import Any, Self

from reactivex import Observable
from reactivex.abc import DisposableBase
from uuid_utils import uuid7

from rxdispatch.checks import key_name
from rxdispatch.clock import LoopScheduler
from rxdispatch.errors import ConfigError, TaskRejectedError
from rxdispatch.listeners import call_each
from rxdispatch.pipelines.graph.edges import queue_of
from rxdispatch.pipelines.graph.model import Edge, GraphNode
from rxdispatch.pipelines.graph.streams import GraphStreams
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.output import MIN_QUEUE, Output
from rxdispatch.pipelines.shared.run import Run
from rxdispatch.pipelines.shared.stage_error import StageError, report
from rxdispatch.streams import Ingress

__all__ = ["GraphRun"]


class GraphRun:
    """
    A running graph, made by :meth:`Graph.run` and used with ``async with``, once.

    Leaving the block normally waits for every item in the graph: a node ends when the nodes that
    feed it have ended. Leaving it by an exception, or by cancellation, cancels the items at work,
    drops the rest, and waits for coroutines to end.

    An edge holds up to ``queue_size`` items of its target, and in addition those that its source
    had at work when it became full. While an edge is full, its source begins nothing new, and so on
    up to :meth:`submit`; nodes of other branches go on with the items that they have.
    """

    def __init__(self, nodes: Mapping[str, GraphNode], edges: Sequence[Edge]) -> None:
        self._nodes = nodes
        self._edges = edges
        fed = {edge.target for edge in edges}
        self._ingresses: dict[str, Ingress[Envelope]] = {
            name: Ingress(queue_of(node)) for name, node in nodes.items() if name not in fed
        }
        self._outputs: dict[str, dict[str, Output[Any]]] = {}
        for name, node in nodes.items():
            self._outputs[name] = {port: Output(MIN_QUEUE) for port in node.outputs}
        self._subscriptions: list[DisposableBase] = []
        self._running = 0
        self._run: Run[StageError] = Run("the graph", close=self._close, finish=self._finish)

    # ------------------------------------------------ input and output

    async def submit(self, node: str, item: Any, id: str | None = None) -> str:  # noqa: A002
        """
        Put *item* into the queue of an entry, and wait while that is full.

        Args:
            node: The name of the entry.
            item: The item for its function.
            id: The id of the item in failures, of 1 to 200 characters; a new UUID by default. The
                item keeps it on every path. An item that a join made of several has their ids,
                joined by ``+``.

        Returns:
            The id.

        Raises:
            ConfigError: If *node* is not an entry of the graph, or *id* breaks its rule.
            TaskRejectedError: If the run was not entered, is closed, or closes while this waits.
        """
        ingress = self._ingresses.get(node)
        if ingress is None:
            raise ConfigError(f"node must be an entry, one of {', '.join(self._ingresses)}", node)
        called = str(uuid7()) if id is None else key_name("id", id)
        self._run.require_open()
        try:
            await ingress.put(Envelope(called, item))
        except TaskRejectedError:
            raise self._run.refusal() from None
        return called

    def results(self, node: str, port: str | None = None) -> Observable[Any]:
        """
        Return the results of *node*, whether or not an edge takes them further.

        The stream is hot: items go to the current subscribers. It completes with the run. A
        subscriber that applies back-pressure holds up the node.

        Args:
            node: The name of a node.
            port: The output port; may be left out if there is only one.

        Raises:
            ConfigError: If there is no such node or port.
        """
        if node not in self._nodes:
            raise ConfigError(f"node must be one of {', '.join(self._nodes)}", node)
        outputs = self._outputs[node]
        if port is None and len(outputs) == 1:
            (port,) = outputs
        if port is None or port not in outputs:
            raise ConfigError(f"port must be one of {', '.join(outputs)}", port)
        return outputs[port].stream

    @property
    def failures(self) -> Observable[StageError]:
        """
        The items that failed, each a ``StageError`` whose ``stage`` is the name of the node.

        Without a subscriber, each is logged as ``item_failed``. The stream completes with the run.
        """
        return self._run.failures.stream

    def _on_failure(self, failure: StageError) -> None:
        report(self._run.failures, failure)

    # ------------------------------------------------ lifetime

    async def __aenter__(self) -> Self:
        self._run.enter()
        loop = asyncio.get_running_loop()
        throttle = self._run.failures.throttle
        streams = GraphStreams(
            self._nodes,
            self._edges,
            submitted={name: ingress.pipe(throttle) for name, ingress in self._ingresses.items()},
            outputs=self._outputs,
            wait_group=self._run.wait_group,
            failed=self._on_failure,
        )
        self._running = len(streams.lasts)
        # All in one turn of the loop: shared streams start in the next turn, so none misses an
        # item.
        for last in streams.lasts:
            self._subscriptions.append(
                last.subscribe(
                    on_error=self._run.fail,
                    on_completed=self._one_less,
                    scheduler=LoopScheduler(loop),
                )
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._run.leave(error)

    async def drain(self, timeout: float | timedelta | None = None) -> bool:
        """
        Accept no more items, and wait until every item in the graph has left it.

        May be called again. Cancelling it leaves the run draining.

        Args:
            timeout: Seconds after which the remaining items are cancelled; None waits as long as
                it takes.

        Returns:
            True if all items came out, False if the rest was cancelled, by this call or earlier.

        Raises:
            ConfigError: If *timeout* is not a number of seconds, or the run was not entered.
            Exception: The error that ended the run, unless that was a timeout or the exception that
                left the block.
        """
        return await self._run.drain(timeout)

    def _close(self) -> None:
        for ingress in self._ingresses.values():
            ingress.close()

    def _one_less(self) -> None:
        self._running -= 1
        if not self._running:
            self._run.finish()

    def _finish(self, error: Exception | None) -> None:
        self._run.conclude()
        outputs = [output for ports in self._outputs.values() for output in ports.values()]
        # An error of one subscriber must not keep the others from their end.
        call_each(
            (
                *(subscription.dispose for subscription in self._subscriptions),
                self._run.close,
                *(partial(output.end, error) for output in outputs),
                self._run.failures.end,
            )
        )
