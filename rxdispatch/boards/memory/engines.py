"""``MemoryEngines``: the engines of a hub's boards in memory, by name."""

from __future__ import annotations

from typing import Any, Final
from weakref import WeakSet

from rxdispatch.boards.base import Board
from rxdispatch.boards.memory.engine import MemoryEngine

__all__ = ["MemoryEngines"]

MANY_ENGINES: Final = 1000
"""At this number of engines, those that are not in use are removed."""


class MemoryEngines:
    """
    The engines of a hub's boards in memory, by name.

    Args:
        boards: The handles of the hub that are in use.
    """

    def __init__(self, boards: WeakSet[Board[Any]]) -> None:
        self._boards = boards
        self._engines: dict[str, MemoryEngine] = {}
        self._limit = MANY_ENGINES

    def __len__(self) -> int:
        return len(self._engines)

    def engine(self, name: str) -> MemoryEngine:
        """Return the engine with that name, or a new engine that is not kept yet."""
        if len(self._engines) >= self._limit:
            self._remove_unused()
        return self._engines.get(name) or MemoryEngine()

    def keep(self, name: str, engine: MemoryEngine) -> None:
        """Keep *engine* under *name*, for further handles."""
        self._engines[name] = engine

    def _remove_unused(self) -> None:
        """Remove the engines that have no handle, no tasks and no options."""
        used = {board.name for board in self._boards}
        for name in [name for name, engine in self._engines.items() if engine.unused]:
            if name not in used:
                del self._engines[name]
        # The next time at twice the number, so that the average cost per board stays constant.
        self._limit = max(MANY_ENGINES, 2 * len(self._engines))
