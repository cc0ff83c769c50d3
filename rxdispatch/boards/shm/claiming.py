"""``Taker``: one claim of tasks."""

from __future__ import annotations

from collections.abc import Sequence

from rxdispatch.boards.codec import id_bytes
from rxdispatch.boards.engine import ClaimedTask
from rxdispatch.boards.shm.holders import Labels
from rxdispatch.boards.shm.local.held_suspects import Holds
from rxdispatch.boards.shm.local.local_index import Finder
from rxdispatch.boards.shm.storage import layout as lay
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.layout import number_of, word
from rxdispatch.boards.shm.storage.mapping import Memory
from rxdispatch.boards.shm.transitions import BIG, CELL_OF, Endings
from rxdispatch.boards.suspects import ROOM, weight

__all__ = ["Taker"]

_HALF = 1 << (lay.NUMBER_BITS - 1)


class Taker:
    """One claim: changes marks, and reads what they have given."""

    def __init__(
        self,
        cells: Cells,
        labels: Labels,
        endings: Endings,
        *,
        limit: int,
        now: int,
        deadline: int,
        worker: str,
        holds: Holds,
        max_crashes: int,
    ) -> None:
        self.found: list[ClaimedTask] = []
        self._cells = cells
        self._memory = cells.memory
        self._labels = labels
        self._endings = endings
        self._limit = limit
        self._now = now
        self._number = self._memory.add(lay.NUMBER, limit)
        # Rounded up: a lease lapses late rather than early.
        self._tick = -(-deadline // lay.TICK) & lay.LOWS
        self._label = labels.number(worker)
        self._worker = worker
        self._holds = holds
        self._full = False
        self._max_crashes = max_crashes

    def take_best(self, finder: Finder) -> None:
        """Take from the ring and from what stands outside it, best first."""
        memory, layout, found = self._memory, self._memory.layout, self.found
        base, slots = layout.ring >> 3, layout.ring_slots
        while len(found) < self._limit:
            head, tail = memory.load(lay.RING_HEAD), memory.load(lay.RING_TAIL)
            top, drop = finder.first(), finder.drop
            suspect = finder.first_suspect()
            if (
                suspect is not None
                and (top is None or suspect[:3] < top[:3])
                and self._fits(suspect)
            ):
                top, drop = suspect, finder.drop_suspect
            if top is not None and (head >= tail or top[:3] < (0, head, 0)):
                drop()
                self._take(top[3], top[4])
                continue
            if head >= tail:
                return
            count = min(self._limit - len(found), tail - head)
            if top is not None and top[0] == 0:
                count = min(count, top[1] + 1 - head)
            at = head % slots
            some = memory.words[base + at : base + min(at + count, slots)].tolist()
            # Read before they are taken: a place may be written anew once the head has passed.
            if memory.cas(lay.RING_HEAD, head, head + len(some)) == head:
                self._take_run(head, some)

    def _fits(self, suspect: tuple[int, ...]) -> bool:
        """Whether the worker has room for a suspect; once it has none, the claim looks no more."""
        if not self._full:
            crashes = self._cells.head(suspect[3])[0].crashes
            held = self._holds.weight(self._worker)
            self._full = held + weight(crashes, self._max_crashes) > ROOM
        return not self._full

    def take_ids(self, ids: Sequence[str]) -> None:
        """Take those of *ids* that are ready."""
        index = self._cells.index
        for task_id in ids:
            if len(self.found) == self._limit:
                return
            raw = id_bytes(task_id)
            while (known := index.find(raw, self._cells)) is not None:
                if known[1] >> lay.STATE_SHIFT not in (lay.FRESH, lay.READY) or self._take(*known):
                    break

    def _take(self, cell: int, mark: int) -> bool:
        """Claim one task if its mark is *mark*."""
        if (self._number - number_of(mark)) & lay.NUMBERS >= _HALF:
            # Tokens of a task only grow, also where who claims was stopped after he took one.
            self._number = self._memory.add(lay.NUMBER, 1)
        number = self._number
        at = self._memory.layout.marks + (cell << 3)
        claimed = word(lay.CLAIMED, number, self._tick)
        if self._memory.cas(at, mark, claimed) != mark:
            return False
        self._number = number + 1
        self._keep(range(cell, cell + 1), [claimed], number)
        return True

    def _take_run(self, place: int, run: Sequence[int]) -> None:
        """
        Claim the tasks of a run of the ring, as far as they are still there.

        Submitters take neighbouring cells in order where they can, so that most runs are ranges
        of cells whose marks count up as the places do: one look at both is enough for all.
        """
        count, cell = len(run), run[0]
        if count == 1:
            mark = self._memory.words[(self._memory.layout.marks >> 3) + cell]
            low = lay.IN_RING | place & lay.PLACES
            if mark >> lay.STATE_SHIFT == lay.FRESH and mark & lay.LOWS == low:
                self._take(cell, mark)
            return
        if run.__class__ is not range and run[-1] - cell == count - 1:
            straight = range(cell, cell + count)
            run = straight if list(straight) == run else run
        if run.__class__ is not range:
            self._take_run(place, run[: count // 2])
            self._take_run(place + count // 2, run[count // 2 :])
            return
        marks = _marks_of(self._memory, run)
        mark, low = marks[0], place & lay.PLACES
        if low + count <= lay.PLACES and list(range(mark, mark + count)) == marks:
            if mark >> 60 == lay.FRESH and mark & lay.LOWS == lay.IN_RING | low:
                self._take_all(run, marks)
        else:
            self._take_run(place, run[: count // 2])
            self._take_run(place + count // 2, run[count // 2 :])

    def _take_all(self, cells: Sequence[int], marks: list[int]) -> None:
        memory, number, count = self._memory, self._number, len(cells)
        cas, base, top = memory.cas, memory.layout.marks, self._tick | lay.CLAIMED << 60
        # From one to the next the number grows by one; the bits above 34 are lost on the way.
        first = (number & lay.NUMBERS) << 26 | top
        if number & lay.NUMBERS > lay.NUMBERS - count:
            claimed = [(number + i & lay.NUMBERS) << 26 | top for i in range(count)]
        else:
            claimed = list(range(first, first + (count << 26), 1 << 26))
        at = range(base + (cells[0] << 3), base + (cells[0] + count << 3), 8)
        self._number = number + count
        missed = [
            i
            for i, (offset, mark, new) in enumerate(zip(at, marks, claimed, strict=True))
            if cas(offset, mark, new) != mark
        ]
        if not missed:
            self._keep(cells, claimed, number)
            return
        lost = set(missed)
        for i in range(count):
            if i not in lost:
                self._keep(cells[i : i + 1], claimed[i : i + 1], number + i)

    def _keep(self, cells: Sequence[int], claimed: list[int], first: int) -> None:
        """Read tasks of neighbouring cells that are ours, of numbers from *first* on."""
        memory, found = self._memory, self.found
        none, now, before = lay.NONE, self._now, len(self.found)
        self._labels.sign(cells, first, self._label)
        late: list[tuple[int, int]] = []
        start = memory.layout.data + cells[0] * lay.CELL
        rows = lay.TASK.iter_unpack(memory.map[start : start + len(cells) * lay.CELL])
        numbers = range(first, first + len(cells))
        for cell, number, row in zip(cells, numbers, rows, strict=True):
            attempts, crashes, id_size, body_size, expires, chain, text, inline = row
            if expires and expires <= now:
                late.append((cell, claimed[number - first]))
                continue
            token = number << 27 | cell
            if chain == none:
                raw, record = inline[:id_size], inline[id_size:body_size]
                if text != none:
                    token |= BIG
            else:
                raw, record = self._cells.body(*self._cells.head(cell))
                token |= BIG
            if crashes:
                self._holds.add(self._worker, token, weight(crashes, self._max_crashes))
            found.append(
                ClaimedTask(
                    raw.decode("utf-8", "surrogateescape"), token, record, attempts, crashes
                )
            )
        marks = _marks_of(memory, cells)
        if marks != claimed:
            held = {c for c, old, new in zip(cells, claimed, marks, strict=True) if old == new}
            found[before:] = [item for item in found[before:] if item.token & CELL_OF in held]
        for cell, mark in late:
            # As if it had not been claimed.
            self._endings.bury(cell, mark, b"expired", unclaimed=True)


def _marks_of(memory: Memory, cells: Sequence[int]) -> list[int]:
    """Return the marks of neighbouring cells."""
    at = (memory.layout.marks >> 3) + cells[0]
    return memory.words[at : at + len(cells)].tolist()
