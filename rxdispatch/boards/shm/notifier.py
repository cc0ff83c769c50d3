"""``Notifier``: passes events and signals between processes, which poll for them."""

from __future__ import annotations

import asyncio
import time
import zlib
from collections.abc import Callable, Sequence
from contextvars import Context

from rxdispatch.boards.engine import Signal
from rxdispatch.boards.event_format import Event, pack_events, read_events
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.mapping import Mapping
from rxdispatch.relay import Relay
from rxdispatch.results import TaskEvent

__all__ = ["Notifier"]

_FAST, _SLOW = 0.001, 0.02
_HEARD = 5_000_000


class Notifier:
    """
    Writes events for other processes, and polls for events and signals while it has subscribers.

    After something has happened it polls every millisecond, then less and less often, down to once
    every 20 ms.
    """

    def __init__(self, mapping: Mapping, joined: Callable[[], bool]) -> None:
        self._mapping = mapping
        self._joined = joined
        self.signals: Relay[Signal] = Relay(
            "signals", on_first=self._start, on_last=self._stop_perhaps
        )
        self.events: Relay[TaskEvent] = Relay(
            "events", on_first=self._listen, on_last=self._stop_perhaps
        )
        #: Emits an empty tuple when claims were cancelled: their holders look which are lost.
        self.cancelled: Relay[Sequence[int]] = Relay(
            "cancelled", on_first=self._start, on_last=self._stop_perhaps
        )
        self._timer: asyncio.TimerHandle | None = None
        self._wait = _FAST
        self._state: tuple[int, int, int] = (0, 0, 0)
        self._ends: int = 0
        self._cancels: int = 0
        self._look_after = 0.0
        self._cursor = 0
        self._hole_since = 0.0

    # -- writing -------------------------------------------------------------------------------

    @property
    def heard(self) -> bool:
        """Whether any process listens to events."""
        until = self._mapping.load(layout.LISTENING)
        return until != 0 and until > time.monotonic_ns() // 1000

    def publish(self, events: list[Event]) -> None:
        """Write *events* to the ring, for the processes that listen."""
        for message in pack_events(time.time(), events):
            self._write(message)

    def _write(self, message: bytes) -> None:
        mapping, ring = self._mapping, self._mapping.geometry.events
        size = 16 + -(-len(message) // 8) * 8
        if size > layout.EVENT_BYTES // 2:
            return
        at = mapping.add(layout.EVENTS, size)
        frame = (len(message) | zlib.crc32(message) << 32).to_bytes(8, "little") + message
        start = (at + 8) % layout.EVENT_BYTES
        room = layout.EVENT_BYTES - start
        mapping.put(ring + start, frame[:room])
        if len(frame) > room:
            mapping.put(ring, frame[room:])
        mapping.store(ring + at % layout.EVENT_BYTES, at + 1)

    # -- reading -------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._cursor = self._mapping.load(layout.EVENTS)
        self._start()

    def _start(self) -> None:
        if self._timer is None:
            self._state = self._now()
            self._ends = self._mapping.load(layout.ENDS)
            self._cancels = self._mapping.load(layout.CANCELS)
            self._wait = _FAST
            # An empty context, because the first subscriber may leave before the others.
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(0, self._poll, context=Context())
        if self.events.active:
            self._be_heard()

    def _stop_perhaps(self) -> None:
        if not (self.events.active or self.signals.active or self.cancelled.active):
            self.stop()

    def stop(self) -> None:
        """Stop polling."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _now(self) -> tuple[int, int, int]:
        load = self._mapping.load
        return load(layout.HINTS), load(layout.RING_TAIL), load(layout.RESUMES)

    def _be_heard(self) -> None:
        now = time.monotonic_ns() // 1000
        if self._mapping.load(layout.LISTENING) < now + _HEARD // 2:
            self._mapping.store(layout.LISTENING, now + _HEARD)

    def _poll(self) -> None:
        loop = asyncio.get_running_loop()
        self._wait = min(self._wait * 1.25, _SLOW)
        self._timer = loop.call_later(self._wait, self._poll)
        if self.events.active:
            self._be_heard()
            self._read()
        cancels = self._mapping.load(layout.CANCELS)
        if cancels != self._cancels:
            self._cancels, self._wait = cancels, _FAST
            self.cancelled.emit(())
        if not self.signals.active:
            return
        state = self._now()
        if state != self._state:
            self._state, self._wait = state, _FAST
            self.signals.emit("ready")
        ends, now = self._mapping.load(layout.ENDS), loop.time()
        if ends != self._ends and now >= self._look_after:
            self._ends = ends
            joined = self._joined()
            # Counting a large board takes a while, so this takes at most a tenth of the time.
            self._look_after = now + 10 * (loop.time() - now)
            if joined:
                self.signals.emit("joined")

    def _read(self) -> None:
        mapping, ring = self._mapping, self._mapping.geometry.events
        while (end := mapping.load(layout.EVENTS)) != self._cursor and self.events.active:
            at = self._cursor
            if end - at > layout.EVENT_BYTES // 2:
                self._cursor = end
                return
            if mapping.load(ring + at % layout.EVENT_BYTES) != at + 1:
                now = time.monotonic()
                self._hole_since = self._hole_since or now
                if now - self._hole_since > 0.25:
                    # The process that reserved this place is dead or stopped: skip its event.
                    self._cursor, self._hole_since = end, 0.0
                return
            self._hole_since = 0.0
            self._wait = _FAST
            facts = mapping.load(ring + (at + 8) % layout.EVENT_BYTES)
            size = facts & 0xFFFFFFFF
            if size > layout.EVENT_BYTES // 2:
                self._cursor = end
                return
            start = (at + 16) % layout.EVENT_BYTES
            room = layout.EVENT_BYTES - start
            message = mapping.mmap[ring + start : ring + start + min(size, room)]
            if size > room:
                message += mapping.mmap[ring : ring + size - room]
            self._cursor = at + 16 + -(-size // 8) * 8
            if zlib.crc32(message) == facts >> 32:
                for event in read_events(message):
                    self.events.emit(event)
