"""``MarkHeap``: a heap of cells in one state, bounded by the size of the board."""

from __future__ import annotations

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from typing import Final

__all__ = ["MarkHeap"]

_FEW: Final = 1024
"""How many entries a heap may have before it drops the stale ones."""
_LOOKS: Final = 8
"""How many entries :meth:`MarkHeap.some` may look at for each one that it should return."""

_Entry = tuple[int, ...]


class MarkHeap:
    """
    A heap of entries whose last two numbers are a cell and its mark.

    An entry is valid while the cell has that mark, and stale afterwards. Other processes change
    marks without notice. So the heap drops stale entries when they come to the top, and all of them
    whenever it has doubled. It has at most twice as many entries as the board had cells in that
    state, or 1,024.

    Args:
        load: Reads the word at an offset.
        marks: The offset of the first cell's mark.

    Attributes:
        known: The mark of each cell that has an entry.
    """

    __slots__ = ("_entries", "_limit", "_load", "_marks", "known")

    def __init__(self, load: Callable[[int], int], marks: int) -> None:
        self._load = load
        self._marks = marks
        self._entries: list[_Entry] = []
        self.known: dict[int, int] = {}
        self._limit = _FEW

    def __len__(self) -> int:
        return len(self._entries)

    def push(self, entry: _Entry) -> None:
        """Add an entry."""
        self.known[entry[-2]] = entry[-1]
        heappush(self._entries, entry)
        if len(self._entries) > self._limit:
            self._prune()

    def pop(self) -> _Entry:
        """Remove and return the first entry, valid or not."""
        entry = heappop(self._entries)
        if self.known.get(entry[-2]) == entry[-1]:
            del self.known[entry[-2]]
        return entry

    def top(self) -> _Entry | None:
        """Return the first entry, valid or not; None if there is none."""
        return self._entries[0] if self._entries else None

    def first(self) -> _Entry | None:
        """Return the first valid entry, and drop the entries before it."""
        entries, load, marks = self._entries, self._load, self._marks
        while entries:
            entry = entries[0]
            if load(marks + (entry[-2] << 3)) == entry[-1]:
                return entry
            self.pop()
        return None

    def tidy(self, most: int) -> bool:
        """Drop up to *most* stale entries from the top; returns False if there may be more."""
        load, marks = self._load, self._marks
        for _ in range(most):
            entry = self.top()
            if entry is None or load(marks + (entry[-2] << 3)) == entry[-1]:
                return True
            self.pop()
        return False

    def some(self, most: int) -> list[_Entry]:
        """Return up to *most* of the first valid entries, in bounded time."""
        entries, found = self._entries, list[_Entry]()
        load, marks = self._load, self._marks
        ahead = [(entries[0], 0)] if entries else []
        for _ in range(_LOOKS * most):
            if not ahead or len(found) == most:
                break
            entry, at = heappop(ahead)
            if load(marks + (entry[-2] << 3)) == entry[-1]:
                found.append(entry)
            for below in (2 * at + 1, 2 * at + 2):
                if below < len(entries):
                    heappush(ahead, (entries[below], below))
        return found

    def _prune(self) -> None:
        load, marks = self._load, self._marks
        self._entries = [e for e in self._entries if load(marks + (e[-2] << 3)) == e[-1]]
        heapify(self._entries)
        self.known = {entry[-2]: entry[-1] for entry in self._entries}
        self._limit = max(_FEW, 2 * len(self._entries))
