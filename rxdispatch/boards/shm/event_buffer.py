"""``Journal``: what one step does, for who listens."""

from __future__ import annotations

from rxdispatch.boards.shm.notifier import Happening, News
from rxdispatch.boards.shm.storage import layout as lay
from rxdispatch.boards.shm.storage.mapping import Memory
from rxdispatch.results import EventKind

__all__ = ["Journal"]


class Journal:
    """
    Collects the events of a step, where somebody listens, and publishes them at its end.

    Attributes:
        heard: Whether anybody listens.
        ended: Whether the step has ended a task.
        buried: Whether the step has buried one.
    """

    def __init__(self, memory: Memory, news: News) -> None:
        self._memory = memory
        self._news = news
        self._events: list[Happening] = []
        self.heard = self.ended = self.buried = False

    def begin(self) -> None:
        """Begin a step."""
        self.heard = self._news.heard
        self.ended = self.buried = False

    def note(
        self,
        kind: EventKind,
        raw: bytes,
        worker: bytes = b"",
        token: int = 0,
        attempt: int = 0,
        reason: bytes = b"",
    ) -> None:
        """Take note of an event."""
        if self.heard:
            self._events.append(Happening(kind, raw, worker, token, attempt, reason))

    def finish(self, *, ready: bool = False) -> None:
        """End a step."""
        if self._events:
            events, self._events = self._events, []
            self._news.publish(events)
        if self.ended:
            self._memory.add(lay.ENDS, 1)
        if ready:
            self._news.signals.emit("ready")
