"""``Index``: which cell an id is in, as a hash table in shared memory."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from rxdispatch.boards.shm.storage import layout as lay
from rxdispatch.boards.shm.storage.layout import number_of
from rxdispatch.boards.shm.storage.mapping import Memory

if TYPE_CHECKING:
    from rxdispatch.boards.shm.storage.cells import Cells

__all__ = ["Index"]

_BIRTHS = (1 << 30) - 1
_NOBODY = frozenset((lay.FREE, lay.WRITING, lay.TAIL, lay.GONE, lay.DISCARD, lay.ABORT))


class Index:
    """
    An id stands in one of 48 slots that its hash names, and nowhere else.

    A slot holds cell, birth and eight bits of hash. It is never cleared: what it says counts
    only if the cell holds a task of that id, so slots of tasks that are over harm nobody and
    are reused. Adding needs the submit lock; moving an entry to the next version of its task
    is one compare-and-swap of words that never come again, so anybody may help with it.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._layout = memory.layout
        self._load = memory.load

    def find(self, raw: bytes, cells: Cells) -> tuple[int, int] | None:
        """Return cell and mark of the task of that id, remembered ones included."""
        load, offset, tag = self._load, *self._place(raw)
        window = self._memory.map[offset : offset + lay.WINDOW * 8]
        # The tag is the lowest byte of each entry: most slots hold what is long over, and only
        # one of 256 of those has to be looked at.
        tags = window[::8]
        i = tags.find(tag)
        while i >= 0:
            seen = int.from_bytes(window[i * 8 : i * 8 + 8], "little")
            while True:
                mark = self._holds(seen >> 38, raw, cells)
                if mark:
                    return seen >> 38, mark
                # It may have moved on while we looked; then the slot says where.
                now = load(offset + i * 8)
                if now == seen:
                    break
                seen = now
            i = tags.find(tag, i + 1)
        return None

    def add(self, raw: bytes, cell: int, birth: int) -> bool:
        """Add an entry; False if all slots of that id are taken."""
        offset, tag = self._place(raw)
        new = entry_of(cell, birth, tag)
        for at in range(offset, offset + lay.WINDOW * 8, 8):
            old = self._load(at)
            if (old == 0 or self._stale(old)) and self._memory.cas(at, old, new) == old:
                return True
        return False

    def replace(
        self, raw: bytes, old_cell: int, old_birth: int, new_cell: int, new_birth: int
    ) -> None:
        """Let the entry of one version name the next one, unless somebody did."""
        offset, tag = self._place(raw)
        old = entry_of(old_cell, old_birth, tag)
        for at in range(offset, offset + lay.WINDOW * 8, 8):
            if self._load(at) == old:
                self._memory.cas(at, old, entry_of(new_cell, new_birth, tag))
                return

    def _place(self, raw: bytes) -> tuple[int, int]:
        sum_ = zlib.crc32(raw)
        slot = ((sum_ * 0x9E3779B1) & 0xFFFFFFFF) * self._layout.index_slots >> 32
        return self._layout.index + slot * 8, sum_ & 255 or 1

    def _stale(self, entry: int) -> bool:
        cell = entry >> 38
        if self._load(self._layout.marks + cell * 8) >> lay.STATE_SHIFT in _NOBODY:
            return True
        birth = self._load(self._layout.data + cell * lay.CELL)
        return birth & _BIRTHS != entry >> 8 & _BIRTHS

    def _holds(self, cell: int, raw: bytes, cells: Cells) -> int:
        """Return the mark of *cell* if it holds the task of that id, else 0."""
        load, at = self._load, self._layout.marks + cell * 8
        while True:
            mark = load(at)
            state = mark >> lay.STATE_SHIFT
            if state in _NOBODY:
                return 0
            if state in (lay.MOVED, lay.PENDING):
                cells.finish(cell, mark)
                if state == lay.MOVED or load(at) == mark:
                    return 0
                continue
            if state in (lay.FRESH, lay.FRESH_LATER) and number_of(mark) == load(lay.STAGING):
                return 0
            same = cells.has_id(cell, raw)
            if load(at) == mark:
                return mark if same else 0


def entry_of(cell: int, birth: int, tag: int) -> int:
    """Return what a slot says."""
    return cell << 38 | (birth & _BIRTHS) << 8 | tag
