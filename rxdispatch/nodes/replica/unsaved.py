"""``Unsaved``: the nodes whose last change is not in the snapshot yet."""

from __future__ import annotations

__all__ = ["Unsaved"]


class Unsaved:
    """Ids of nodes that were changed or removed since the last save; at first, all of them."""

    def __init__(self) -> None:
        self._ids: set[str] = set()
        self._all = True

    def add(self, node: str) -> None:
        """Have a node saved, or its removal."""
        self._ids.add(node)

    def add_all(self) -> None:
        """Have the whole fleet saved, in place of what the snapshot holds."""
        self._all = True

    def take(self) -> set[str] | None:
        """Return the ids, or None for the whole fleet, and forget them."""
        ids = None if self._all else self._ids
        self._ids, self._all = set(), False
        return ids
