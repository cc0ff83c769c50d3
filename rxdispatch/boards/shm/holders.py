"""``Holders``: records in shared memory which worker holds which claim."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.layout import number_of
from rxdispatch.boards.shm.storage.mapping import Mapping

__all__ = ["Holders"]


class Holders:
    """
    The labels of workers, and for each cell the number of the label of the worker that claimed it.

    This is information for people; no decision depends on it. A cell's word contains the number of
    the claim. If a process was killed before it wrote the word, the word still has the number of an
    older claim, and the holder is unknown.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._known: dict[str, int] = {}

    def clear(self) -> None:
        """Forget the labels that this process wrote from another seat."""
        self._known.clear()

    def number(self, worker: str) -> int:
        """Return the number of a worker's label; store the label if it is new."""
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
        """Write *label* as the holder of neighbouring cells, claimed with numbers from *first*."""
        mapping, count = self._mapping, len(cells)
        at = mapping.geometry.holders + (cells[0] << 3)
        word = (first & layout.NUMBERS) << 16 | label
        if count == 1:
            mapping.store(at, word)
        else:
            mapping.put(at, pack(f"<{count}Q", *range(word, word + (count << 16), 1 << 16)))

    def of(self, cell: int, mark: int) -> bytes:
        """
        Return the label of the worker that holds a claim; empty if it is unknown.

        If its process has had more than eight labels since, another label may be there, or even
        a part of each, cut within a character.
        """
        mapping, geometry = self._mapping, self._mapping.geometry
        holder = mapping.load(geometry.holders + cell * 8)
        if holder >> 16 & layout.NUMBERS != number_of(mark):
            return b""
        at = geometry.labels + (holder & 0xFFFF) * layout.LABEL
        size = int.from_bytes(mapping.mmap[at : at + 2], "little")
        return mapping.mmap[at + 2 : at + 2 + size]
