"""``RingWalk``: finds tasks of some kinds in the ring, for claims that may not take all kinds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Final

from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.kind_table import KindChoice
from rxdispatch.boards.shm.storage.layout import make_mark, number_of

__all__ = ["RingWalk"]

_STEPS: Final = 1024
"""The most places that are read, or passed, at a time."""
_CHOICES: Final = 64
"""How many choices a process remembers."""
_SHIFT: Final = layout.KIND_SHIFT
_CROWDED = 7 / 8
"""Of a ring that is longer than this part of its slots, the tasks at the head leave it."""


class RingWalk:
    """
    Walks the ring past the tasks that a claim may not take, which stay there for others.

    A claim takes such a task by its mark alone, and the ring's head stays. So the ring gets places
    whose tasks are gone, and claims pass these when they come to the head. If tasks that nobody
    takes hold the head until the ring is nearly full, they leave it, and are announced by hints.

    INVARIANT. Before the place that the process remembers for a choice, the ring leads to no task
    of these kinds that is still ready. This stays true, because the words of the ring do not change
    while their places are in it.

    Args:
        cells: The cells of the board.
        announce: Announces cells to all processes.
    """

    def __init__(self, cells: Cells, announce: Callable[[list[int]], None]) -> None:
        self._cells = cells
        self._mapping = cells.mapping
        self._geometry = cells.geometry
        self._announce = announce
        self._seen: dict[KindChoice, int] = {}

    def first(self, choice: KindChoice, head: int, tail: int) -> int:
        """Return the first place of a task that a claim may take; *tail* if there is none."""
        if choice.only is not None and not choice.only:
            return tail
        start = max(head, self._seen.get(choice, 0))
        if start < tail and choice.allows(self._word(start) >> _SHIFT):
            return start
        allowed = (p for p, word in self._words(start, tail) if choice.allows(word >> _SHIFT))
        place = next(allowed, tail)
        self.passed(choice, place)
        return place

    def run(self, choice: KindChoice, place: int, stop: int) -> list[int]:
        """
        Return the words from *place* to *stop*, up to the first that the choice does not allow.

        There may be none, if the ring has passed *place* and its word has changed.
        """
        some = takewhile(lambda item: choice.allows(item[1] >> _SHIFT), self._words(place, stop))
        return [word for _, word in some]

    def passed(self, choice: KindChoice, place: int) -> None:
        """Remember that all tasks of *choice* before *place* were taken."""
        if len(self._seen) == _CHOICES and choice not in self._seen:
            self._seen.clear()
        self._seen[choice] = place

    def clear_head(self) -> None:
        """Pass the places at the head whose tasks are gone; of a crowded ring, also others."""
        mapping = self._mapping
        head, tail = mapping.load(layout.RING_HEAD), mapping.load(layout.RING_TAIL)
        crowded = tail - head > self._geometry.ring_slots * _CROWDED
        if head == tail or (not crowded and self._ready(head, self._word(head)) is not None):
            return
        passed, ready = head, list[tuple[int, int]]()
        for place, word in self._words(head, min(tail, head + _STEPS)):
            mark = self._ready(place, word)
            if mark is not None:
                if not crowded:
                    break
                ready.append((word & layout.NONE, mark))
            passed = place + 1
        # If the process dies after this swap, scans find the tasks that the ring has passed.
        if passed == head or mapping.cas(layout.RING_HEAD, head, passed) != head:
            return
        self._announce(
            [
                cell
                for cell, mark in ready
                if self._cells.swap(cell, mark, make_mark(layout.READY, number_of(mark)))
            ]
        )

    def _ready(self, place: int, word: int) -> int | None:
        """Return the mark of the task of a place; None if the task is gone."""
        mark = self._cells.mark(word & layout.NONE)
        low = layout.IN_RING | place & layout.PLACES
        same = mark >> layout.STATE_SHIFT == layout.FRESH and mark & layout.LOWS == low
        return mark if same else None

    def _word(self, place: int) -> int:
        return self._mapping.words[(self._geometry.ring >> 3) + place % self._geometry.ring_slots]

    def _words(self, place: int, stop: int) -> Iterator[tuple[int, int]]:
        """Yield places and their words; a few are read at first, then more at a time."""
        words, slots, base = self._mapping.words, self._geometry.ring_slots, self._geometry.ring
        count = 8
        while place < stop:
            at = place % slots
            some = words[(base >> 3) + at : (base >> 3) + min(at + min(count, stop - place), slots)]
            yield from enumerate(some.tolist(), place)
            place += len(some)
            count = min(2 * count, _STEPS)
