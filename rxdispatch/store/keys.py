"""The names of keys and channels, of a board and of a fleet."""

from __future__ import annotations

import attrs

__all__ = ["BoardKeys", "FleetKeys"]

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
        tag = b"{" + f"{_space(namespace)}:{board}".encode() + b"}:"
        return cls(
            keys=tuple(tag + name.encode() for name in _KEYS),
            replies=tag + b"reply:",
            events=tag + b"events" + _database(db),
            hints=tag + b"hints" + _database(db),
        )


_FLEET = ("meta", "nodes", "log", "expiry", "graves", "slots", "leases")


@attrs.frozen(slots=True)
class FleetKeys:
    """
    Every name that the scripts of one fleet use, all under one hash tag.

    Attributes:
        keys: In the order in which the scripts expect them.
        changes: The channel of changes.
    """

    keys: tuple[bytes, ...]
    changes: bytes

    @classmethod
    def of(cls, namespace: str, db: int = 0) -> FleetKeys:
        """Return the names for the fleet of *namespace* in database *db*."""
        # Without a colon in the braces, so that it is no board's.
        tag = b"{" + _space(namespace).encode() + b"}:fleet:"
        return cls(tuple(tag + name.encode() for name in _FLEET), tag + b"changes" + _database(db))


def _database(db: int) -> bytes:
    return b"@%d" % db if db else b""


def _space(namespace: str) -> str:
    # The first colon ends the namespace: one of its own is written otherwise, or "a:b" with
    # board "c" would have the keys of "a" with board "b:c".
    return namespace.replace("%", "%25").replace(":", "%3A")
