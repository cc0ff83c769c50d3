"""The format of the messages in which boards publish events; ``events.lua`` writes it too."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple, get_args

from rxdispatch.boards.task_codec import id_text
from rxdispatch.log import get_logger
from rxdispatch.results import EventKind, TaskEvent
from rxdispatch.throttled_warning import ThrottledWarning

__all__ = ["KINDS", "Event", "pack_events", "read_events"]

_unreadable: Final = ThrottledWarning(get_logger(__name__), "event_unreadable")

KINDS: Final[tuple[EventKind, ...]] = get_args(EventKind)
"""A message has the index of a kind in this tuple; CODES in events.lua must agree."""
_CODES: Final = {kind: code for code, kind in enumerate(KINDS)}

# A message has the time in microseconds and then, for each event: the kind, the token, the attempt,
# the lengths of id, worker, reason and the task's kind, and these four texts. The task's kind is
# empty if it is ``default``.
_AT: Final = struct.Struct(">d")
_HEAD: Final = struct.Struct(">BQIIHHH")
_MESSAGE_BYTES: Final = 1 << 16
"""After about this many bytes, a message takes no more events."""


class Event(NamedTuple):
    """An event before it is packed; its texts are UTF-8."""

    kind: EventKind
    id: bytes
    worker: bytes = b""
    token: int = 0
    attempt: int = 0
    reason: bytes = b""
    task_kind: bytes = b""


def pack_events(at: float, events: Sequence[Event]) -> Iterator[bytes]:
    """Yield the messages that carry *events*, which happened *at* (seconds since 1970)."""
    start = _AT.pack(at * 1e6)
    parts, size = [start], 0
    for kind, raw, worker, token, attempt, reason, task_kind in events:
        lengths = len(raw), len(worker), len(reason), len(task_kind)
        head = _HEAD.pack(_CODES[kind], token & (1 << 64) - 1, attempt, *lengths)
        part = head + raw + worker + reason + task_kind
        if size and size + len(part) > _MESSAGE_BYTES:
            yield b"".join(parts)
            parts, size = [start], 0
        parts.append(part)
        size += len(part)
    yield b"".join(parts)


def read_events(message: bytes | None) -> list[TaskEvent]:
    """Return the events of one message; none if the message cannot be read."""
    events: list[TaskEvent] = []
    if message is None:
        return events
    try:
        at = _AT.unpack_from(message)[0] / 1e6
        start = _AT.size
        while start < len(message):
            head: tuple[int, ...] = _HEAD.unpack_from(message, start)
            kind, token, attempt, size, worker_size, reason_size, kind_size = head
            start += _HEAD.size
            task_id = message[start : start + size]
            start += size
            worker = message[start : start + worker_size]
            start += worker_size
            reason = message[start : start + reason_size]
            start += reason_size
            task_kind = message[start : start + kind_size]
            start += kind_size
            events.append(
                TaskEvent(
                    KINDS[kind],
                    id_text(task_id),
                    worker.decode("utf-8", "replace") or None,
                    token or None,
                    attempt if token else None,
                    at,
                    reason.decode("utf-8", "replace") or None,
                    task_kind.decode("utf-8", "replace") or "default",
                )
            )
    except (struct.error, IndexError) as error:
        # Any client may publish on the channel; an unreadable message must not end the stream.
        _unreadable.tell(str(error))
    return events
