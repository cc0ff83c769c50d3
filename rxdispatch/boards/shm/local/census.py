"""``Census``: counts the marks of a board, of all tasks, of some kinds or of each kind."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Container, Iterator
from typing import Final

from rxdispatch.boards.shm.local.states import BEGUN, UNDECIDED, states_of
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.layout import number_of

__all__ = ["Census"]

_TRIES: Final = 5
_PAGE: Final = 2048
"""How many cells a count of kinds looks at before other tasks of the loop get a turn."""
_ALL: Final = range(layout.KINDS)
_FINISHED: Final = layout.NO_TASK | {layout.DEAD, layout.DONE}
_MOVING: Final = frozenset((layout.MOVED, layout.PENDING))


class Census:
    """
    Counts how many marks have each state.

    Args:
        cells: The cells of the board.
        note: Finishes what a process began with a cell.
        begin: Raises if the board is closed.
    """

    def __init__(
        self, cells: Cells, note: Callable[[int], None], begin: Callable[[], object]
    ) -> None:
        self._cells = cells
        self._mapping = cells.mapping
        self._note = note
        self._begin = begin

    def of_all(self) -> list[int]:
        """Return how many marks have each state; exact if no task moves during the count."""
        mapping, geometry = self._mapping, self._mapping.geometry
        shift = layout.STATE_SHIFT
        amounts: list[int] = []
        for _ in range(_TRIES):
            before = mapping.load(layout.MOVES)
            staging = mapping.load(layout.STAGING)
            begun: list[int] = []
            start = geometry.marks
            raw = mapping.mmap[start : start + mapping.load(layout.HIGH) * 8]
            states = states_of(raw)
            amounts = [states.count(state) for state in range(16)]
            if staging:
                for mark in memoryview(raw).cast("Q").tolist():
                    if number_of(mark) == staging and mark >> shift in UNDECIDED:
                        amounts[mark >> shift] -= 1
            for state in BEGUN:
                if amounts[state]:
                    begun += [cell for cell, found in enumerate(states) if found == state]
            for cell in begun:
                self._note(cell)
            # The old version of a pending one may have been counted before the move was decided.
            if not (amounts[layout.MOVED] or amounts[layout.PENDING]) and (
                mapping.load(layout.MOVES) == before
            ):
                break
        return amounts

    def is_joined(self) -> bool:
        """Whether nothing is scheduled, ready or claimed."""
        return not any(
            amount for state, amount in enumerate(self.of_all()) if state not in _FINISHED
        )

    async def of_kinds(self, kinds: frozenset[int]) -> list[int]:
        """
        Return how many marks of unfinished tasks of *kinds* have each state.

        The count is 0 only if, at some moment during the call, no task of *kinds* was unfinished:
        a task stays in its cell unless it moves, and each move and each submission adds to the
        arrivals of its kind.
        """
        load = self._mapping.load
        for _ in range(_TRIES):
            before = self._cells.kinds.arrivals(kinds)
            amounts, staged = [0] * 16, set[int]()
            for start in range(0, load(layout.HIGH), _PAGE):
                if start:
                    await asyncio.sleep(0)
                    self._begin()
                for _, _, state in self._unfinished(start, kinds, staged):
                    amounts[state] += 1
            # What was left out must not have been submitted meanwhile.
            same = staged <= {load(layout.STAGING)}
            if any(amounts) or (same and self._cells.kinds.arrivals(kinds) == before):
                return amounts
            await asyncio.sleep(0)
            self._begin()
        # Tasks of these kinds keep coming.
        amounts = [0] * 16
        amounts[layout.PENDING] = 1
        return amounts

    async def by_kind(self) -> dict[str, int]:
        """
        Return how many unfinished tasks each kind has; exact if no task moves during the count.

        Tasks whose kind this process cannot find out count as ``default``.
        """
        kinds, amounts = self._cells.kinds, Counter[int]()
        if kinds.only_default:
            states = self.of_all()
            amounts[0] = sum(n for state, n in enumerate(states) if state not in _FINISHED)
        else:
            for start in range(0, self._mapping.load(layout.HIGH), _PAGE):
                if start:
                    await asyncio.sleep(0)
                    self._begin()
                amounts += self._kinds_of_page(start)
        named = Counter[str]()
        for kind, amount in amounts.items():
            named[kinds.name(kind, b"")] += amount
        return dict(named)

    def _kinds_of_page(self, start: int) -> Counter[int]:
        """Return how many unfinished tasks of a page each kind has, and learn the kinds' names."""
        amounts, cells = Counter[int](), dict[int, int]()
        states, lows, highs = self._page(start)[1:]
        if self._mapping.load(layout.STAGING) or not _MOVING.isdisjoint(states):
            for cell, kind, _ in self._unfinished(start, _ALL, set()):
                amounts[kind] += 1
                cells[kind] = cell
        else:
            # A loop over equal triples, as there are far fewer of them than of cells.
            for (state, low, high), amount in Counter(
                zip(states, lows, highs, strict=True)
            ).items():
                if state not in _FINISHED:
                    kind = high << 8 | low
                    amounts[kind] += amount
                    if not self._cells.kinds.is_named(kind):
                        triples = zip(states, lows, highs, strict=True)
                        cells[kind] = start + list(triples).index((state, low, high))
        for kind, cell in cells.items():
            if not self._cells.kinds.is_named(kind):
                self._learn_name(cell)
        return amounts

    def _page(self, start: int) -> tuple[bytes, bytes, bytes, bytes]:
        """Return the marks of a page, their states, and the two bytes of each cell's kind."""
        mapping, geometry = self._mapping, self._mapping.geometry
        stop = min(start + _PAGE, mapping.load(layout.HIGH))
        raw = mapping.mmap[geometry.marks + start * 8 : geometry.marks + stop * 8]
        # The kinds are read after the marks: if a cell changes in between, its task has ended, or
        # has moved, which is counted as an arrival.
        at, end = geometry.data + start * layout.CELL + layout.KIND_AT, geometry.data
        end += stop * layout.CELL
        lows, highs = mapping.mmap[at : end : layout.CELL], mapping.mmap[at + 1 : end : layout.CELL]
        return raw, states_of(raw), lows, highs

    def _learn_name(self, cell: int) -> None:
        """Learn the name of a kind from the task of *cell*, unless it has changed meanwhile."""
        cells = self._cells
        known = cells.read(cell, cells.mark(cell))
        if known is not None:
            cells.kinds.name(known[0].kind, cells.body(*known)[1])

    def _unfinished(
        self, start: int, kinds: Container[int], staged: set[int]
    ) -> Iterator[tuple[int, int, int]]:
        """
        Yield the cell, kind and state of a page's unfinished tasks of *kinds*.

        Add to *staged* the numbers of tasks that do not exist yet.
        """
        mapping, cells = self._mapping, self._cells
        raw, states, lows, highs = self._page(start)
        if not set(states) - _FINISHED:
            return
        marks = memoryview(raw).cast("Q")
        for i, (state, low, high) in enumerate(zip(states, lows, highs, strict=True)):
            kind = high << 8 | low
            if state in _FINISHED or kind not in kinds:
                continue
            if state in _MOVING:
                self._note(start + i)
                state = cells.mark(start + i) >> layout.STATE_SHIFT  # noqa: PLW2901
                if state in _FINISHED:
                    continue
            elif state in UNDECIDED and number_of(marks[i]) == mapping.load(layout.STAGING):
                staged.add(number_of(marks[i]))
                continue
            yield start + i, kind, state
