"""``PipelineInput``: accepts the items of a pipeline, one by one or from a source."""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable
from typing import Any

from reactivex import Observable
from reactivex import operators as rx
from uuid_utils import uuid7

from rxdispatch.checks import key_name
from rxdispatch.errors import TaskRejectedError
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.once import Once
from rxdispatch.pipelines.shared.output import MIN_QUEUE
from rxdispatch.pipelines.shared.run import Run
from rxdispatch.pipelines.shared.stage_error import StageError
from rxdispatch.pipelines.stages.pipeline_checks import Source, check_source
from rxdispatch.pipelines.stages.resubmits import ResubmitIngress, Resubmits
from rxdispatch.streams import from_async_iterable, to_async_iterable

__all__ = ["PipelineInput"]


class PipelineInput:
    """
    The entrance of a pipeline: puts items into the queue of the first stage, or onto its board.

    Args:
        run: The run of the pipeline; items enter while it is open.
        ingress: The queue of the first stage.
        resubmits: Keeps each item that enters, so that a failed one can be submitted again.
    """

    def __init__(
        self, run: Run[StageError], ingress: ResubmitIngress, resubmits: Resubmits | None
    ) -> None:
        self._run = run
        self._ingress = ingress
        self._resubmits = resubmits
        self._stop = Once("input")
        self._feeding = 0
        #: Takes each item instead of the queue, if no stage runs in this process.
        self.handoff: Callable[[Envelope], Awaitable[None]] | None = None
        #: How many items have entered.
        self.submitted = 0

    async def submit(self, item: Any, id: str | None) -> str:  # noqa: A002
        """Do the work of :meth:`Pipeline.submit`."""
        called = str(uuid7()) if id is None else key_name("id", id)
        self._run.require_open()
        await self._put(Envelope(called, item))
        return called

    async def feed(self, source: Source) -> int:
        """Do the work of :meth:`Pipeline.feed`."""
        check_source(source)
        self._run.require_open()
        fed = 0
        self._feeding += 1
        try:
            if isinstance(source, (Observable, AsyncIterable)):
                stream = source if isinstance(source, Observable) else from_async_iterable(source)
                until = stream.pipe(rx.take_until(self._stop.stream))
                async with to_async_iterable(until, size=MIN_QUEUE) as items:
                    async for item in items:
                        await self._put(Envelope(str(uuid7()), item))
                        fed += 1
            else:
                for item in source:
                    await self._put(Envelope(str(uuid7()), item))
                    fed += 1
                    if self._run.closed:
                        break
        finally:
            self._feeding -= 1
            if self._run.closed and not self._feeding:
                self._ingress.close()
        return fed

    async def feed_all(self, source: Source) -> None:
        """Feed *source*, and close the run at its end."""
        try:
            await self.feed(source)
        finally:
            self._run.close()

    def close(self) -> None:
        """Accept only the items that feeds have already taken from their sources."""
        self._stop.happen()
        if not self._feeding:
            self._ingress.close()

    async def _put(self, envelope: Envelope) -> None:
        if self.handoff is not None:
            await self.handoff(envelope)
            return
        resubmits = self._resubmits
        if resubmits is not None:
            resubmits.enter(envelope)
        try:
            await self._ingress.put(envelope)
        except BaseException as error:
            if resubmits is not None:
                resubmits.leave(envelope)
            if isinstance(error, TaskRejectedError):
                raise self._run.refusal() from None
            raise
        self.submitted += 1
