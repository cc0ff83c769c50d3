"""``GraphRun``: a graph at work."""

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
from rxdispatch.errors import ConfigError, ItemTimeoutError, TaskRejectedError
from rxdispatch.listeners import call_each
from rxdispatch.log import get_logger
from rxdispatch.pipelines.graph.edges import LEAST, queue_of
from rxdispatch.pipelines.graph.model import Edge, Vertex
from rxdispatch.pipelines.graph.streams import GraphStreams
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.output import Output
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.pipelines.stages.stage import StageError
from rxdispatch.seconds import seconds
from rxdispatch.streams import Ingress

__all__ = ["GraphRun"]

log = get_logger(__name__)


class GraphRun:
    """
    A graph at work, made by :meth:`Graph.run` and used with ``async with``, once.

    Leaving the block normally waits for every item that was taken in: nodes end one after the
    other, each when those that feed it have. Leaving it by an exception, or by cancellation,
    cancels what is at work, drops the rest, and waits for coroutines to end.

    Each edge holds as many items as the queue of its target says, and those besides which its
    source had at work when it got full. When it is full, its source begins nothing new, and
    so on up to :meth:`submit`; nodes of other branches go on with what they have.
    """

    def __init__(self, vertices: Mapping[str, Vertex], edges: Sequence[Edge]) -> None:
        self._vertices = vertices
        self._edges = edges
        fed = {edge.target for edge in edges}
        self._intakes: dict[str, Ingress[Envelope]] = {
            name: Ingress(queue_of(vertex)) for name, vertex in vertices.items() if name not in fed
        }
        self._outputs: dict[str, dict[str, Output[Any]]] = {}
        for name, vertex in vertices.items():
            self._outputs[name] = {port: Output(LEAST) for port in vertex.outputs}
        self._failures: Output[StageError] = Output(LEAST)
        self._wait_group = WaitGroup()
        self._subscriptions: list[DisposableBase] = []
        self._running = 0
        self._entered = self._closing = self._aborted = False
        self._failure: Exception | None = None

    # ------------------------------------------------ what goes in and comes out

    async def submit(self, node: str, item: Any, id: str | None = None) -> str:  # noqa: A002
        """
        Hand *item* to an entry, and wait while its queue is full.

        Args:
            node: The name of the entry.
            item: What its function gets.
            id: What failures call the item; a new uuid by default. It keeps it on all its ways;
                what is made of several items has their ids, joined by ``+``.

        Returns:
            The id.

        Raises:
            ConfigError: If *node* is no entry of the graph, or *id* breaks its rule.
            TaskRejectedError: If the run has not been entered, or takes no more, also while
                this waits.
        """
        intake = self._intakes.get(node)
        if intake is None:
            raise ConfigError(f"node must be an entry, one of {', '.join(self._intakes)}", node)
        called = str(uuid7()) if id is None else key_name("id", id)
        if self._closing or not self._entered:
            raise self._refusal()
        try:
            await intake.put(Envelope(called, item))
        except TaskRejectedError:
            raise self._refusal() from None
        return called

    def results(self, node: str, port: str | None = None) -> Observable[Any]:
        """
        Return what leaves *node*, whether or not an edge takes it further.

        It is hot: items go to those who are subscribed at the moment. It completes with the run.
        A subscriber that can make its source wait holds up the node.

        Args:
            node: The name of a node.
            port: Which output port; may be left out if there is one alone.

        Raises:
            ConfigError: If there is no such node or port.
        """
        if node not in self._vertices:
            raise ConfigError(f"node must be one of {', '.join(self._vertices)}", node)
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

        While nobody is subscribed they are logged, as ``item_failed``. It completes with the
        run.
        """
        return self._failures.stream

    def _on_failure(self, failure: StageError) -> None:
        if self._failures.open:
            self._failures.emit(failure)
            return
        cause = failure.__cause__
        log.warning(
            "item_failed",
            stage=failure.stage,
            item=failure.task_id,
            failure=cause,
        )

    def _refusal(self) -> TaskRejectedError:
        return TaskRejectedError(
            "the graph is closed" if self._entered else "the run of a graph must be entered first"
        )

    # ------------------------------------------------ its life

    async def __aenter__(self) -> Self:
        if self._entered:
            raise ConfigError("a run must be entered once; make another one")
        self._entered = True
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[None] = loop.create_future()
        streams = GraphStreams(
            self._vertices,
            self._edges,
            intakes={
                name: intake.pipe(self._failures.throttle) for name, intake in self._intakes.items()
            },
            outputs=self._outputs,
            wait_group=self._wait_group,
            failed=self._on_failure,
        )
        self._running = len(streams.lasts)
        # In one turn: what is shared begins with the next one, so nobody misses anything.
        for last in streams.lasts:
            self._subscriptions.append(
                last.subscribe(
                    on_error=self._fail, on_completed=self._one_less, scheduler=LoopScheduler(loop)
                )
            )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if error is None:
                await self.drain()
        except BaseException as worse:
            error = worse
            raise
        finally:
            if error is not None:
                self._abort(error if isinstance(error, Exception) else self._refusal())
            await self._wait_group.wait()

    async def drain(self, timeout: float | timedelta | None = None) -> bool:
        """
        Take no more in, and wait until every item that was has come out.

        May be called again. Cancelling it leaves the run draining.

        Args:
            timeout: Seconds after which what is left is cancelled; None waits as long as it
                takes.

        Returns:
            True if all came out, False if the rest was cancelled, now or before.

        Raises:
            ConfigError: If *timeout* is no number of seconds, or the run was not entered.
            Exception: What ended the run, if that was neither a time limit nor the block.
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        if not self._entered:
            raise ConfigError("a run must be entered before it is drained")
        self._close()
        if not self._ended.done():
            await asyncio.wait({self._ended}, timeout=limit)
        if not self._ended.done():
            self._abort(ItemTimeoutError(limit or 0.0, name="work in flight"))
            await self._wait_group.wait()
        if self._failure is not None:
            raise self._failure
        return not self._aborted

    def _close(self) -> None:
        self._closing = True
        for intake in self._intakes.values():
            intake.close()

    def _one_less(self) -> None:
        self._running -= 1
        if not self._running:
            self._finish()

    def _fail(self, error: Exception) -> None:
        if not self._ended.done():
            self._failure = error
            self._finish(error)

    def _abort(self, error: Exception) -> None:
        if not self._ended.done():
            self._aborted = True
            self._finish(error)

    def _finish(self, error: Exception | None = None) -> None:
        self._ended.set_result(None)
        outputs = [output for ports in self._outputs.values() for output in ports.values()]
        # What a listener raises at the end must not keep the others from it.
        call_each(
            (
                *(subscription.dispose for subscription in self._subscriptions),
                self._close,
                *(partial(output.end, error) for output in outputs),
                self._failures.end,
            )
        )
