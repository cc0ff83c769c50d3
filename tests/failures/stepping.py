"""Cancels a coroutine at a chosen await, and calls a function in a chosen round of a loop."""

from __future__ import annotations

import asyncio
import selectors
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Literal, TypeVar

__all__ = ["Moment", "Rounds", "cancelled_at"]

T = TypeVar("T")

Moment = Literal["waiting", "answered"]


def cancelled_at(work: Coroutine[Any, Any, T], n: int, moment: Moment) -> asyncio.Task[T]:
    """
    Run *work* in a task that is cancelled at its n-th suspension, counted from 1.

    Args:
        work: What to run.
        n: At which suspension; if *work* has fewer, nothing is cancelled.
        moment: ``waiting`` cancels as the wait begins; ``answered`` when the result is there, but
            before *work* could take it.
    """

    async def stepped() -> T:
        return await _steps(work, n, moment)

    return asyncio.get_running_loop().create_task(stepped())


@types.coroutine
def _steps(work: Coroutine[Any, Any, T], n: int, moment: Moment) -> Generator[Any, Any, T]:
    task: Any = asyncio.current_task()
    step = 0
    error: BaseException | None = None
    while True:
        try:
            waited: Any = work.send(None) if error is None else work.throw(error)
        except StopIteration as end:
            result: T = end.value
            return result
        step += 1
        if step == n:
            if moment == "answered" and waited is not None:
                # Comes before the task's own callback, which asyncio adds after this yield.
                future: asyncio.Future[Any] = waited
                future.add_done_callback(lambda _: task.cancel())
            else:
                task.cancel()
        error = None
        try:
            yield waited
        except BaseException as thrown:
            # Every exception is passed to the coroutine.
            error = thrown


class Rounds(selectors.DefaultSelector):
    """A selector that calls a function in a certain round of its loop."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 0
        self._call: Callable[[], object] | None = None

    def after(self, rounds: int, call: Callable[[], object]) -> None:
        """Call *call* after *rounds* rounds."""
        self._left, self._call = rounds, call

    @property
    def pending(self) -> bool:
        """Whether the call has not been made yet."""
        return self._call is not None

    def select(self, timeout: float | None = None) -> Any:
        """Wait for events like any selector, and count the round."""
        if self._call is not None:
            self._left -= 1
            if self._left <= 0:
                call, self._call = self._call, None
                call()
                # The loop chose the timeout before it knew of this call.
                timeout = 0
        return super().select(timeout)
