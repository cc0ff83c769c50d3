"""``Geometry``: how many cells the file of a board has, and where its parts begin."""

from __future__ import annotations

from rxdispatch.boards.shm.storage import layout
from rxdispatch.checks import integer

__all__ = ["Geometry"]


class Geometry:
    """
    The counts and byte offsets in the file of a board.

    Args:
        capacity: How many tasks fit if each takes one cell.
        spare: How many more cells there are, so that tasks can move when the board is full; by
            default 1/32 of the capacity, at least 1,024.

    Raises:
        ConfigError: If *capacity* is not an int from 1 to 8,388,608.
    """

    def __init__(self, capacity: int, spare: int | None = None) -> None:
        integer("capacity", capacity, 1, layout.CELL_LIMIT // 2)
        self.capacity = capacity
        self.spare = max(1024, capacity // 32) if spare is None else spare
        self.cells = capacity + self.spare
        self.ring_slots = self.cells
        self.index_slots = 3 * self.cells
        self.kinds = layout.HEADER
        self.labels = self.kinds + layout.KINDS * layout.KIND
        self.hints = self.labels + layout.SEATS * layout.LABELS * layout.LABEL
        self.events = self.hints + layout.HINT_SLOTS * 8
        self.marks = self.events + layout.EVENT_BYTES
        self.holders = self.marks + self.cells * 8
        self.ring = self.holders + self.cells * 8
        self.index = self.ring + self.ring_slots * 8
        self.data = -(-(self.index + (self.index_slots + layout.WINDOW) * 8) // 64) * 64
        self.size = self.data + self.cells * layout.CELL
