"""``FleetKeys``: the names of the keys and channels of one fleet."""

from __future__ import annotations

import attrs

from rxdispatch.store.namespace import database_suffix, escaped

__all__ = ["FleetKeys"]

_FLEET = ("meta", "nodes", "log", "expiry", "graves", "slots", "leases")


@attrs.frozen(slots=True)
class FleetKeys:
    """
    Every key and channel of one fleet, all under one hash tag.

    Attributes:
        keys: The keys, in the order that the scripts expect.
        changes: The channel of changes.
    """

    keys: tuple[bytes, ...]
    changes: bytes

    @classmethod
    def of(cls, namespace: str, db: int = 0) -> FleetKeys:
        """Return the names for the fleet of *namespace* in database *db*."""
        # No colon in the braces: the tags of boards have one.
        tag = b"{" + escaped(namespace).encode() + b"}:fleet:"
        return cls(
            tuple(tag + name.encode() for name in _FLEET), tag + b"changes" + database_suffix(db)
        )
