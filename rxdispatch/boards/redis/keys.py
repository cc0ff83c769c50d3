"""``BoardKeys``: the names of the keys and channels of one board."""

from __future__ import annotations

import attrs

from rxdispatch.store.namespace import database_suffix, escaped

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
    "suspects",
    "held",
)


@attrs.frozen(slots=True)
class BoardKeys:
    """
    Every name that the scripts of one board use, all under one hash tag.

    A server has one space of channels for all its databases, so the name of a channel tells which
    database it belongs to; in database 0 it does not.

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
    def of(cls, namespace: str, board: str, db: int = 0) -> BoardKeys:
        """Return the names for *board* in *namespace*, in database *db*."""
        tag = b"{" + f"{escaped(namespace)}:{board}".encode() + b"}:"
        return cls(
            keys=tuple(tag + name.encode() for name in _KEYS),
            replies=tag + b"reply:",
            events=tag + b"events" + database_suffix(db),
            hints=tag + b"hints" + database_suffix(db),
        )
