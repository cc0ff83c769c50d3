"""The namespace and the database number in the names of keys and channels."""

from __future__ import annotations

__all__ = ["database_suffix", "escaped"]


def database_suffix(db: int) -> bytes:
    """Return the suffix of a channel's name in database *db*; empty for database 0."""
    return b"@%d" % db if db else b""


def escaped(namespace: str) -> str:
    """
    Return *namespace* without colons.

    The first colon of a key ends the namespace. Without this, the keys of namespace ``a:b`` with
    board ``c`` would be those of namespace ``a`` with board ``b:c``.
    """
    return namespace.replace("%", "%25").replace(":", "%3A")
