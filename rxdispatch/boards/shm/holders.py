"""``Labels``: who holds which claim."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from rxdispatch.boards.shm.storage import layout as lay
from rxdispatch.boards.shm.storage.layout import number_of
from rxdispatch.boards.shm.storage.mapping import Memory

__all__ = ["Labels"]


class Labels:
    """
    The labels of workers, and beside each mark the number of the one who claimed it.

    They only inform. A holder's word names the number of its claim, so that what a process
    killed in between did not write is taken for unknown, not for somebody else's.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._known: dict[str, int] = {}

    def clear(self) -> None:
        """Forget what was written from another seat."""
        self._known.clear()

    def number(self, worker: str) -> int:
        """Return the number under which a worker's label is stored."""
        known = self._known.get(worker)
        if known is None:
            memory = self._memory
            at = lay.SEATS_AT + memory.seat * 8
            turn = memory.load(at) >> 1
            memory.store(at, (turn + 1) << 1 | 1)
            known = memory.seat * lay.LABELS + turn % lay.LABELS
            raw = worker.encode("utf-8", "replace")
            memory.put(
                memory.layout.labels + known * lay.LABEL, len(raw).to_bytes(2, "little") + raw
            )
            self._known = {w: n for w, n in self._known.items() if n != known}
            self._known[worker] = known
        return known

    def sign(self, cells: Sequence[int], first: int, label: int) -> None:
        """Write who claimed neighbouring cells, by numbers from *first* on."""
        memory, count = self._memory, len(cells)
        at = memory.layout.holders + (cells[0] << 3)
        word = (first & lay.NUMBERS) << 16 | label
        if count == 1:
            memory.store(at, word)
        else:
            memory.put(at, pack(f"<{count}Q", *range(word, word + (count << 16), 1 << 16)))

    def of(self, cell: int, mark: int) -> bytes:
        """Return who holds a claim; nothing if that is not known any more."""
        memory, layout = self._memory, self._memory.layout
        holder = memory.load(layout.holders + cell * 8)
        if holder >> 16 & lay.NUMBERS != number_of(mark):
            return b""
        at = layout.labels + (holder & 0xFFFF) * lay.LABEL
        size = int.from_bytes(memory.map[at : at + 2], "little")
        return memory.map[at + 2 : at + 2 + size]
