"""``EventBuffer``: collects the events of one step and publishes them."""

from __future__ import annotations

from rxdispatch.boards.event_format import Event
from rxdispatch.boards.shm.notifier import Notifier
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.mapping import Mapping
from rxdispatch.boards.task_codec import kind_of
from rxdispatch.results import EventKind

__all__ = ["EventBuffer"]


class EventBuffer:
    """
    Collects the events of a step, if any process listens, and publishes them at its end.

    Attributes:
        heard: Whether any process listens.
        ended: Whether the step has ended a task.
        buried: Whether the step has made a task dead.
    """

    def __init__(self, mapping: Mapping, notifier: Notifier) -> None:
        self._mapping = mapping
        self._notifier = notifier
        self._events: list[Event] = []
        self.heard = self.ended = self.buried = False

    def begin(self) -> None:
        """Begin a step."""
        self.heard = self._notifier.heard
        self.ended = self.buried = False

    def note(
        self,
        kind: EventKind,
        raw: bytes,
        worker: bytes = b"",
        token: int = 0,
        attempt: int = 0,
        reason: bytes = b"",
        *,
        record: bytes,
    ) -> None:
        """Add an event of the task whose record is *record*."""
        if self.heard:
            task_kind = kind_of(record)
            name = b"" if task_kind == "default" else task_kind.encode("utf-8", "surrogatepass")
            self._events.append(Event(kind, raw, worker, token, attempt, reason, name))

    def finish(self, *, ready: bool = False) -> None:
        """End a step; *ready* says whether it made tasks ready."""
        if self._events:
            events, self._events = self._events, []
            self._notifier.publish(events)
        if self.ended:
            self._mapping.add(layout.ENDS, 1)
        if ready:
            self._notifier.signals.emit("ready")
