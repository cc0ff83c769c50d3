"""``Run``: the life cycle of a pipeline, a graph or an actor."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Generic, TypeVar

from rxdispatch.errors import ConfigError, ItemTimeoutError, TaskExecutionError, TaskRejectedError
from rxdispatch.pipelines.shared.output import MIN_QUEUE, Output
from rxdispatch.pipelines.shared.wait_group import WaitGroup
from rxdispatch.seconds import seconds

__all__ = ["Run"]

E = TypeVar("E", bound=TaskExecutionError)


class Run(Generic[E]):
    """
    The life cycle of a run: NEW -> OPEN -> CLOSED -> ENDING -> ENDED, never back.

    In OPEN, the run accepts work. In CLOSED, it refuses work, and ends once all accepted work is
    done. In ENDING, the owner releases its resources; in ENDED, it has released them. An error or
    an abort leads from OPEN or CLOSED straight to ENDING. Cancelled coroutines may outlive ENDED:
    ``wait_group`` counts them.

    Args:
        what: The owner's name in errors, such as "the pipeline".
        close: Called once, when the run closes: the owner must then accept nothing more.
        finish: Called once, with the error if there is one: the owner must then release its
            resources and call :meth:`conclude`.
    """

    def __init__(
        self,
        what: str,
        *,
        close: Callable[[], None],
        finish: Callable[[Exception | None], None],
    ) -> None:
        self._what = what
        self._close = close
        self._finish = finish
        self._ended: asyncio.Future[None] | None = None
        self._failure: Exception | None = None
        #: Whether it refuses work; has begun to end; was ended before all work was done.
        self.closed = self.ending = self.aborted = False
        #: The coroutines at work.
        self.wait_group = WaitGroup()
        #: The items that failed.
        self.failures: Output[E] = Output(MIN_QUEUE)

    # ------------------------------------------------ begin

    def enter(self) -> None:
        """
        Open the run, on the running loop.

        Raises:
            ConfigError: If the run was entered before.
        """
        if self._ended is not None:
            raise ConfigError(f"{self._what} must be entered once; make another one")
        self._ended = asyncio.get_running_loop().create_future()

    @property
    def entered(self) -> bool:
        """Whether it was ever entered."""
        return self._ended is not None

    @property
    def ended(self) -> bool:
        """Whether it has ended."""
        return self._ended is not None and self._ended.done()

    def require_open(self) -> None:
        """
        Refuse work unless the run is open.

        Raises:
            TaskRejectedError: If the run was not entered, or is closed.
        """
        if self.closed or self._ended is None:
            raise self.refusal()

    def refusal(self) -> TaskRejectedError:
        """Return the error for work that is refused."""
        state = "must be entered first" if self._ended is None else "is closed"
        return TaskRejectedError(f"{self._what} {state}")

    # ------------------------------------------------ end

    def close(self) -> None:
        """Accept no more work; may be called again."""
        if not self.closed:
            self.closed = True
            self._close()

    def finish(self) -> None:
        """End the run: all work is done."""
        self._end(None)

    def fail(self, error: Exception) -> None:
        """End the run with *error*, which belongs to no item; :meth:`drain` raises it."""
        if not self.ending:
            self._failure = error
            self._end(error)

    def abort(self, error: Exception) -> None:
        """End the run before all work is done; *error* tells its subscribers why."""
        if not self.ending:
            self.aborted = True
            self._end(error)

    def conclude(self) -> None:
        """Record that the run has ended."""
        assert self._ended is not None
        self._ended.set_result(None)

    def _end(self, error: Exception | None) -> None:
        if not self.ending:
            self.ending = True
            self._finish(error)

    # ------------------------------------------------ waiting for the end

    async def drain(self, timeout: float | timedelta | None = None) -> bool:
        """
        Close the run, and wait until all work is done; after *timeout* seconds, abort it.

        Returns:
            True if all work was done, False if the rest was cancelled, by this call or earlier.

        Raises:
            ConfigError: If *timeout* is not a number of seconds, or the run was not entered.
            Exception: The error that the run failed with.
        """
        limit = None if timeout is None else seconds("timeout", timeout)
        if self._ended is None:
            raise ConfigError(f"{self._what} must be entered before it is drained")
        self.close()
        if not self._ended.done():
            await asyncio.wait({self._ended}, timeout=limit)
        if not self._ended.done():
            self.abort(ItemTimeoutError(limit or 0.0, name="work in flight"))
            await self.wait()
        if self._failure is not None:
            raise self._failure
        return not self.aborted

    async def wait(self) -> None:
        """Wait until the run has ended and no coroutine is at work."""
        if self._ended is not None and not self._ended.done():
            await asyncio.wait({self._ended})
        await self.wait_group.wait()

    async def leave(
        self, error: BaseException | None, feeding: asyncio.Task[None] | None = None
    ) -> None:
        """
        End the run when its ``async with`` block is left, and wait for its coroutines.

        Args:
            error: The exception that left the block, which aborts the run; None drains it.
            feeding: A task that submits work: a drain waits for it first, an abort cancels it.

        Raises:
            Exception: What :meth:`drain` or *feeding* raises.
        """
        try:
            if error is None:
                if feeding is not None:
                    await asyncio.wait({feeding})
                await self.drain()
        except BaseException as worse:
            error = worse
            raise
        finally:
            if error is not None:
                self.abort(error if isinstance(error, Exception) else self.refusal())
            if feeding is not None:
                feeding.cancel()
                await asyncio.wait({feeding})
            await self.wait()
        if feeding is not None and not self.aborted:
            feeding.result()
