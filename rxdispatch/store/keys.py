"""The names of a board's keys and channels."""

from __future__ import annotations

import attrs

__all__ = ["BoardKeys"]

_KEYS = (
    "ready",
    "sched",
    "leases",
    "marks",
    "tasks",
    "tries",
    "place",
    "expiry",
    "dead",
    "grave",
    "past",
    "meta",
)


@attrs.frozen(slots=True)
class BoardKeys:
    """
    Every name that the scripts of one board use, all under one hash tag.

    Attributes:
        keys: In the order in which the scripts expect them, without the reply's.
        replies: What the key of a kept reply begins with.
        events: The channel of events.
        hints: The channel of wake-ups.
    """

    keys: tuple[bytes, ...]
    replies: bytes
    events: bytes
    hints: bytes

    @classmethod
    def of(cls, namespace: str, board: str) -> BoardKeys:
        """Return the names for *board* in *namespace*."""
        # The first colon ends the namespace: one of its own is written otherwise, or "a:b" with
        # board "c" would have the keys of "a" with board "b:c".
        space = namespace.replace("%", "%25").replace(":", "%3A")
        tag = b"{" + f"{space}:{board}".encode() + b"}:"
        return cls(
            keys=tuple(tag + name.encode() for name in _KEYS),
            replies=tag + b"reply:",
            events=tag + b"events",
            hints=tag + b"hints",
        )
