"""``BoardKeys``: the names of the keys and channels of one board."""

from __future__ import annotations

import attrs

from rxdispatch.store.namespace import database_suffix, escaped

__all__ = ["BoardKeys"]


@attrs.frozen(slots=True)
class BoardKeys:
    """
    The names that the scripts of one board use. They have the same hash tag.

    The databases of a server share their channels, so the name of a channel ends with the number of
    the database, except in database 0.

    Attributes:
        tag: The prefix of all keys.
        events: The channel of events.
        joined: The channel that tells when nothing is left.
        suffix: What follows the name of a channel: the number of the database.
    """

    tag: bytes
    events: bytes
    joined: bytes
    suffix: bytes

    @classmethod
    def of(cls, namespace: str, board: str, db: int = 0) -> BoardKeys:
        """Return the names for *board* in *namespace*, in database *db*."""
        tag = b"{" + f"{escaped(namespace)}:{board}".encode() + b"}:"
        return cls(
            tag=tag,
            events=tag + b"events" + database_suffix(db),
            joined=tag + b"joined" + database_suffix(db),
            suffix=database_suffix(db),
        )

    def inbox(self, name: bytes) -> bytes:
        """Return the channel of the inbox *name*, which ends with :attr:`suffix`."""
        return self.tag + b"inbox:" + name

    def key(self, name: str) -> bytes:
        """Return the full name of a key, such as ``ready``."""
        return self.tag + name.encode()
