"""``Doubts``: the nodes that must be looked up in the registry."""

from __future__ import annotations

import asyncio

__all__ = ["Doubts"]


class Doubts:
    """
    Ids of nodes to look up: the feed has missed a change of the node, or its ttl has run out.

    Attributes:
        wake: Set when the sync task has something to do, such as looking up a node.
    """

    def __init__(self) -> None:
        self.wake = asyncio.Event()
        self._ids: set[str] = set()

    def __bool__(self) -> bool:
        return bool(self._ids)

    def add(self, node: str) -> None:
        """Have a node looked up."""
        self._ids.add(node)
        self.wake.set()

    def take(self) -> tuple[str, ...]:
        """Return all ids, and forget them; a node added after this call is looked up again."""
        ids, self._ids = tuple(self._ids), set()
        return ids
