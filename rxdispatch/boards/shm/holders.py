"""``Holders``: which worker holds which claim."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.layout import number_of
from rxdispatch.boards.shm.storage.mapping import Mapping

__all__ = ["Holders"]


class Holders:
    """
    The labels of workers, and for each cell the number of the label that claimed it.

    They only inform. A holder's word contains the number of its claim: if a process was killed
    before it wrote the word, the holder counts as unknown instead of as another worker.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._known: dict[str, int] = {}

    def clear(self) -> None:
        """Forget the labels that were written from another seat."""
        self._known.clear()

    def number(self, worker: str) -> int:
        """Return the number of a worker's label, which is stored if it is new."""
        known = self._known.get(worker)
        if known is None:
            mapping = self._mapping
            at = layout.SEATS_AT + mapping.seat * 8
            turn = mapping.load(at) >> 1
            mapping.store(at, (turn + 1) << 1 | 1)
            known = mapping.seat * layout.LABELS + turn % layout.LABELS
            raw = worker.encode("utf-8", "replace")
            mapping.put(
                mapping.geometry.labels + known * layout.LABEL, len(raw).to_bytes(2, "little") + raw
            )
            self._known = {w: n for w, n in self._known.items() if n != known}
            self._known[worker] = known
        return known

    def sign(self, cells: Sequence[int], first: int, label: int) -> None:
        """Write the holder of neighbouring cells, claimed with numbers from *first* on."""
        mapping, count = self._mapping, len(cells)
        at = mapping.geometry.holders + (cells[0] << 3)
        word = (first & layout.NUMBERS) << 16 | label
        if count == 1:
            mapping.store(at, word)
        else:
            mapping.put(at, pack(f"<{count}Q", *range(word, word + (count << 16), 1 << 16)))

    def of(self, cell: int, mark: int) -> bytes:
        """Return the label of the worker that holds a claim; empty if it is unknown."""
        mapping, geometry = self._mapping, self._mapping.geometry
        holder = mapping.load(geometry.holders + cell * 8)
        if holder >> 16 & layout.NUMBERS != number_of(mark):
            return b""
        at = geometry.labels + (holder & 0xFFFF) * layout.LABEL
        size = int.from_bytes(mapping.mmap[at : at + 2], "little")
        return mapping.mmap[at + 2 : at + 2 + size]
