"""The namespace and the database number in the names of keys and channels."""

from __future__ import annotations

__all__ = ["database_suffix", "escaped"]


def database_suffix(db: int) -> bytes:
    """Return the suffix of a channel's name in database *db*; empty for database 0."""
    return b"@%d" % db if db else b""


def escaped(namespace: str) -> str:
    """
    Return *namespace* with its colons escaped.

    The first colon of a key ends the namespace. Without the escape, board ``c`` in
    namespace ``a:b`` would have the same keys as board ``b:c`` in namespace ``a``.
    """
    return namespace.replace("%", "%25").replace(":", "%3A")
