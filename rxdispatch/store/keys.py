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
        tag = b"{" + f"{_space(namespace)}:{board}".encode() + b"}:"
        return cls(
            keys=tuple(tag + name.encode() for name in _KEYS),
            replies=tag + b"reply:",
            events=tag + b"events",
            hints=tag + b"hints",
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
    def of(cls, namespace: str) -> FleetKeys:
        """Return the names for the fleet of *namespace*."""
        # Without a colon in the braces, so that it is no board's.
        tag = b"{" + _space(namespace).encode() + b"}:fleet:"
        return cls(tuple(tag + name.encode() for name in _FLEET), tag + b"changes")


def _space(namespace: str) -> str:
    # The first colon ends the namespace: one of its own is written otherwise, or "a:b" with
    # board "c" would have the keys of "a" with board "b:c".
    return namespace.replace("%", "%25").replace(":", "%3A")
