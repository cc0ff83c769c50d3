"""``Unsaved``: the nodes whose last change is not in the snapshot yet."""

from __future__ import annotations

__all__ = ["Unsaved"]


class Unsaved:
    """The nodes that were changed or removed since the last save; at first, the whole fleet."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._all = True

    def add(self, node: str) -> None:
        """Have the last change of a node saved, which may be its removal."""
        self._ids.add(node)

    def add_all(self) -> None:
        """Have the whole fleet saved, which replaces what the snapshot holds."""
        self._all = True

    def take(self) -> set[str] | None:
        """Return the ids, or None for the whole fleet, and forget them."""
        ids = None if self._all else self._ids
        self._ids, self._all = set(), False
        return ids
