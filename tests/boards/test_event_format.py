"""The messages that carry events."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

from rxdispatch.boards.event_format import KINDS, Event, pack_events, read_events
from rxdispatch.results import EventKind, TaskEvent

EVENTS = Path(__file__).parents[2] / "rxdispatch/boards/redis/lua/parts/events.lua"


def test_lua_numbers_the_kinds_alike() -> None:
    """The Lua scripts and the reader use the same number for every kind of event."""
    table = re.search(r"CODES = \{(.*?)\}", EVENTS.read_text(), re.DOTALL)
    assert table is not None
    codes = {kind: int(code) for kind, code in re.findall(r"(\w+) = (\d+)", table[1])}
    assert {kind: code for code, kind in enumerate(KINDS)} == codes
    assert get_args(EventKind) == KINDS


def test_what_is_packed_is_read() -> None:
    """The reader restores all fields, and missing ones are None."""
    events = [
        Event("submitted", "à".encode()),
        Event("dead", b"1", b"w", (1 << 63) + 5, 3, b"failed", "käse".encode()),
    ]
    (message,) = pack_events(1.5, events)
    assert [
        TaskEvent("submitted", "à", None, None, None, 1.5),
        TaskEvent("dead", "1", "w", (1 << 63) + 5, 3, 1.5, "failed", "käse"),
    ] == read_events(message)


def test_long_messages_are_divided() -> None:
    """A message of 64 KiB takes no further event, and an event is never split."""
    events = [Event("done", bytes([65 + n]) * 40_000) for n in range(3)]
    messages = list(pack_events(0.0, events))
    assert [1, 1, 1] == [len(read_events(message)) for message in messages]
