"""Reading what the scripts publish as events."""

from __future__ import annotations

import struct
from typing import Final

from rxdispatch.boards.codec import id_text
from rxdispatch.flood import Flood
from rxdispatch.log import get_logger
from rxdispatch.results import EventKind, TaskEvent

__all__ = ["read_events"]

_unreadable: Final = Flood(get_logger(__name__), "event_unreadable")

_AT: Final = struct.Struct(">d")
_HEAD: Final = struct.Struct(">BQIIHH")
_KINDS: Final[tuple[EventKind, ...]] = (
    "submitted",
    "claimed",
    "done",
    "retried",
    "released",
    "crashed",
    "dead",
    "redriven",
    "discarded",
)


def read_events(message: bytes | None) -> list[TaskEvent]:
    """
    Return the events of one message; none where the message cannot be read.

    A message is the time in microseconds and then, for each event: kind, token, attempt, the
    lengths of id, worker and reason, and these three.
    """
    events: list[TaskEvent] = []
    if message is None:
        return events
    try:
        at = _AT.unpack_from(message)[0] / 1e6
        start = _AT.size
        while start < len(message):
            head: tuple[int, ...] = _HEAD.unpack_from(message, start)
            kind, token, attempt, size, worker_size, reason_size = head
            start += _HEAD.size
            task_id = message[start : start + size]
            start += size
            worker = message[start : start + worker_size]
            start += worker_size
            reason = message[start : start + reason_size]
            start += reason_size
            events.append(
                TaskEvent(
                    _KINDS[kind],
                    id_text(task_id),
                    worker.decode("utf-8", "replace") or None,
                    token or None,
                    attempt if token else None,
                    at,
                    reason.decode("utf-8", "replace") or None,
                )
            )
    except (struct.error, IndexError) as error:
        # Anybody may publish on a channel; what is not ours must not end the stream.
        _unreadable.tell(str(error))
    return events
