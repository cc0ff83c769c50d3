"""``FleetKeys``: the names of the keys and channels of one fleet."""

from __future__ import annotations

import attrs

from rxdispatch.store.namespace import database_suffix, escaped

__all__ = ["FleetKeys"]

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
        tag = b"{" + escaped(namespace).encode() + b"}:fleet:"
        return cls(
            tuple(tag + name.encode() for name in _FLEET), tag + b"changes" + database_suffix(db)
        )
