"""``Resubmits``: sends failed items through a pipeline again, from its start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from rxdispatch.log import get_logger
from rxdispatch.pipelines.shared.envelope import Envelope
from rxdispatch.pipelines.shared.stage_error import StageError
from rxdispatch.streams import Ingress

__all__ = ["ResubmitIngress", "Resubmits", "Rule"]

log = get_logger(__name__)

Rule = Callable[[StageError], float | None]


class ResubmitIngress(Ingress[Envelope]):
    """
    The queue of the first stage, to which items can return.

    An item that returns does not wait for a place: if items that are about to fail held all places,
    it would wait for itself. No more items return than the pipeline holds, because each of them had
    a place before.
    """

    def __init__(self, size: int) -> None:
        super().__init__(size)
        #: Whether no item can return any more.
        self.settled: Callable[[], bool] = _yes

    def give_back(self, envelope: Envelope) -> None:
        """Put *envelope* in, even beyond the bound and after :meth:`close`."""
        self._put_beyond_size(envelope)

    def look(self) -> None:
        """Complete if the queue is closed and no item can return."""
        if self._closed:
            self._pump()

    def _exhausted(self) -> bool:
        return super()._exhausted() and self.settled()


class Resubmits:
    """
    Keeps the items in a pipeline as they were submitted, by token, and submits failed ones again.

    Args:
        rule: Returns the seconds after which the item of a failure is submitted again, or None.
        ingress: The queue of the first stage.
        failed: Called with each final failure.
    """

    def __init__(
        self, rule: Rule, ingress: ResubmitIngress, failed: Callable[[StageError], None]
    ) -> None:
        self._rule = rule
        self._ingress = ingress
        self._failed = failed
        self._inside: dict[int, tuple[Any, int]] = {}
        self._timers: dict[int, asyncio.TimerHandle] = {}
        self._last = 0
        ingress.settled = lambda: not self._inside

    def enter(self, envelope: Envelope) -> None:
        """Give *envelope* the token that it keeps until it leaves the pipeline."""
        self._last += 1
        envelope.token = self._last
        self._inside[self._last] = envelope.value, 1

    def leave(self, envelope: Envelope) -> None:
        """Forget an item that has left the pipeline, or did not get in."""
        self._inside.pop(envelope.token, None)
        self._ingress.look()

    def lost(self, envelope: Envelope, failure: StageError | None) -> None:
        """Submit the item of *envelope* again if the rule says so."""
        delay = None
        if failure is not None and envelope.token in self._inside:
            failure.round = self._inside[envelope.token][1]
            delay = self._asked(failure)
        if delay is not None:
            handle = asyncio.get_running_loop().call_later(delay, self._again, envelope)
            self._timers[envelope.token] = handle
            return
        try:
            if failure is not None:
                self._failed(failure)
        finally:
            self.leave(envelope)

    def close(self) -> None:
        """Forget all items, and cancel their waits."""
        for handle in self._timers.values():
            handle.cancel()
        self._timers.clear()
        self._inside.clear()

    def _asked(self, failure: StageError) -> float | None:
        if isinstance(failure.__cause__, KeyboardInterrupt):
            return None
        try:
            delay = self._rule(failure)
            return None if delay is None else max(0.0, float(delay))
        except Exception as error:
            log.warning("resubmit_failed", item=failure.task_id, failure=error)
            return None

    def _again(self, envelope: Envelope) -> None:
        del self._timers[envelope.token]
        item, number = self._inside[envelope.token]
        self._inside[envelope.token] = item, number + 1
        self._ingress.give_back(Envelope(envelope.id, item, token=envelope.token))


def _yes() -> bool:
    return True
