"""``Index``: a hash table in shared memory from ids to cells."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator

from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.mapping import Mapping

__all__ = ["Index"]

_BIRTHS = (1 << 30) - 1


class Index:
    """
    A hash table from ids to cells; the hash of an id selects 48 neighbouring slots for its entry.

    An entry has a cell, a birth and eight bits of hash. Entries are never cleared. An entry is
    valid only while the cell holds a task with that id, so entries of finished tasks do no harm,
    and their slots are reused. Adding an entry needs the submit lock. Any process may point an
    entry at the next version of its task, by one compare-and-swap of a word that never comes back.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._geometry = mapping.geometry
        self._load = mapping.load

    def candidates(self, raw: bytes) -> Iterable[int]:
        """Return the cells that may hold the task with that id."""
        offset, tag = self._place(raw)
        # The tag is the lowest byte of each entry. Most slots have entries of tasks that ended long
        # ago, and only one of 256 of these has the same tag.
        window = self._mapping.mmap[offset : offset + layout.WINDOW * 8]
        first = window[::8].find(tag)
        return self._walk(offset, tag, window, first) if first >= 0 else ()

    def _walk(self, offset: int, tag: int, window: bytes, i: int) -> Iterator[int]:
        tags = window[::8]
        while i >= 0:
            seen = int.from_bytes(window[i * 8 : i * 8 + 8], "little")
            while True:
                yield seen >> 38
                # If the task moved while the caller looked, the slot now has its new cell.
                now = self._load(offset + i * 8)
                if now == seen:
                    break
                seen = now
            i = tags.find(tag, i + 1)

    def add(self, raw: bytes, cell: int, birth: int) -> bool:
        """Add an entry; returns False if all slots of that id are taken."""
        offset, tag = self._place(raw)
        new = entry_of(cell, birth, tag)
        for at in range(offset, offset + layout.WINDOW * 8, 8):
            old = self._load(at)
            if (old == 0 or self._stale(old)) and self._mapping.cas(at, old, new) == old:
                return True
        return False

    def replace(
        self, raw: bytes, old_cell: int, old_birth: int, new_cell: int, new_birth: int
    ) -> None:
        """Point the entry of one version at the next version, if it does not yet."""
        offset, tag = self._place(raw)
        old = entry_of(old_cell, old_birth, tag)
        for at in range(offset, offset + layout.WINDOW * 8, 8):
            if self._load(at) == old:
                self._mapping.cas(at, old, entry_of(new_cell, new_birth, tag))
                return

    def _place(self, raw: bytes) -> tuple[int, int]:
        sum_ = zlib.crc32(raw)
        slot = ((sum_ * 0x9E3779B1) & 0xFFFFFFFF) * self._geometry.index_slots >> 32
        return self._geometry.index + slot * 8, sum_ & 255 or 1

    def _stale(self, entry: int) -> bool:
        cell = entry >> 38
        if self._load(self._geometry.marks + cell * 8) >> layout.STATE_SHIFT in layout.NO_TASK:
            return True
        birth = self._load(self._geometry.data + cell * layout.CELL)
        return birth & _BIRTHS != entry >> 8 & _BIRTHS


def entry_of(cell: int, birth: int, tag: int) -> int:
    """Return the word of an entry."""
    return cell << 38 | (birth & _BIRTHS) << 8 | tag
