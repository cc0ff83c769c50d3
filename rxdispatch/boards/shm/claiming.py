"""``Claiming``: one call of claim, which changes marks and reads the claimed tasks."""

from __future__ import annotations

from collections.abc import Sequence

from rxdispatch.boards.engine import ClaimedTask
from rxdispatch.boards.shm.holders import Holders
from rxdispatch.boards.shm.local.held_suspects import HeldSuspects
from rxdispatch.boards.shm.local.local_index import LocalIndex
from rxdispatch.boards.shm.local.ring_walk import RingWalk
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.kind_table import KindChoice
from rxdispatch.boards.shm.storage.layout import make_mark, number_of
from rxdispatch.boards.shm.storage.mapping import Mapping
from rxdispatch.boards.shm.transitions import BIG, CELL_OF, Transitions
from rxdispatch.boards.suspects import ROOM, weight
from rxdispatch.boards.task_codec import id_bytes

__all__ = ["Claiming"]

_HALF = 1 << (layout.NUMBER_BITS - 1)


class Claiming:
    """One call of claim, for up to *limit* tasks; ``found`` has the claimed tasks."""

    def __init__(
        self,
        cells: Cells,
        holders: Holders,
        transitions: Transitions,
        *,
        limit: int,
        now: int,
        deadline: int,
        worker: str,
        held_suspects: HeldSuspects,
        max_crashes: int,
    ) -> None:
        self.found: list[ClaimedTask] = []
        self._cells = cells
        self._mapping = cells.mapping
        self._holders = holders
        self._transitions = transitions
        self._limit = limit
        self._now = now
        self._number = self._mapping.add(layout.NUMBER, limit)
        # Rounded up: a lease lapses late rather than early.
        self._tick = -(-deadline // layout.TICK) & layout.LOWS
        self._label = holders.number(worker)
        self._worker = worker
        self._held_suspects = held_suspects
        self._full = False
        self._max_crashes = max_crashes

    def take_best(self, local_index: LocalIndex, walk: RingWalk, choice: KindChoice | None) -> None:
        """Claim tasks of the ring and of the local index, best first; None allows all kinds."""
        mapping, geometry, found = self._mapping, self._mapping.geometry, self.found
        base, slots = geometry.ring >> 3, geometry.ring_slots
        ready, suspects = local_index.ready(choice), local_index.suspects(choice)
        while len(found) < self._limit:
            head, tail = mapping.load(layout.RING_HEAD), mapping.load(layout.RING_TAIL)
            place = head if choice is None else walk.first(choice, head, tail)
            top, queue = ready.first(), ready
            suspect = suspects.first()
            if (
                suspect is not None
                and (top is None or suspect[:3] < top[:3])
                and self._fits(suspect)
            ):
                top, queue = suspect, suspects
            if top is not None and (place >= tail or top[:3] < (0, place, 0)):
                queue.pop()
                self._take(top[3], top[4])
                continue
            if place >= tail:
                break
            count = min(self._limit - len(found), tail - place)
            if top is not None and top[0] == 0:
                count = min(count, top[1] + 1 - place)
            if choice is None:
                at = place % slots
                some = mapping.words[base + at : base + min(at + count, slots)].tolist()
            else:
                some = walk.run(choice, place, place + count)
                if not some:
                    continue
            if mapping.load(geometry.kinds + layout.KIND):
                # There is a kind besides the default one; it was added before its first task.
                some = [word & layout.NONE for word in some]
            # The places were read before the head moves: behind the head they may be reused.
            if choice is not None and place > head:
                walk.passed(choice, place + len(some))
                self._take_run(place, some)
            elif mapping.cas(layout.RING_HEAD, head, head + len(some)) == head:
                self._take_run(head, some)
        if choice is not None:
            walk.clear_head()

    def _fits(self, suspect: tuple[int, ...]) -> bool:
        """Whether the worker has room for a suspect; once False, it stays False."""
        if not self._full:
            crashes = self._cells.head(suspect[3])[0].crashes
            held = self._held_suspects.weight(self._worker)
            self._full = held + weight(crashes, self._max_crashes) > ROOM
        return not self._full

    def take_ids(self, ids: Sequence[str], choice: KindChoice | None) -> None:
        """Claim the ready tasks among *ids*; None allows all kinds."""
        find = self._cells.find
        for task_id in ids:
            if len(self.found) == self._limit:
                return
            raw = id_bytes(task_id)
            while (known := find(raw)) is not None:
                # A claim checks the mark again, and so that the kind was that of this task.
                if choice is not None and not choice.allows(self._cells.kind(known[0])):
                    break
                if known[1] >> layout.STATE_SHIFT not in (layout.FRESH, layout.READY) or self._take(
                    *known
                ):
                    break

    def _take(self, cell: int, mark: int) -> bool:
        """Claim one task if its mark is *mark*."""
        if (self._number - number_of(mark)) & layout.NUMBERS >= _HALF:
            # This process was stopped after it took its number. Tokens of a task must only grow.
            self._number = self._mapping.add(layout.NUMBER, 1)
        number = self._number
        at = self._mapping.geometry.marks + (cell << 3)
        claimed = make_mark(layout.CLAIMED, number, self._tick)
        if self._mapping.cas(at, mark, claimed) != mark:
            return False
        self._number = number + 1
        self._keep(range(cell, cell + 1), [claimed], number)
        return True

    def _take_run(self, place: int, run: Sequence[int]) -> None:
        """
        Claim the tasks of a run of the ring that are still ready.

        Submitters take neighbouring cells in order if they can, so most runs are ranges of cells
        whose marks count up like the places. Then one comparison shows that all tasks are ready.
        """
        count, cell = len(run), run[0]
        if count == 1:
            mark = self._mapping.words[(self._mapping.geometry.marks >> 3) + cell]
            low = layout.IN_RING | place & layout.PLACES
            if mark >> layout.STATE_SHIFT == layout.FRESH and mark & layout.LOWS == low:
                self._take(cell, mark)
            return
        if run.__class__ is not range and run[-1] - cell == count - 1:
            straight = range(cell, cell + count)
            run = straight if list(straight) == run else run
        if run.__class__ is not range:
            self._take_run(place, run[: count // 2])
            self._take_run(place + count // 2, run[count // 2 :])
            return
        marks = _marks_of(self._mapping, run)
        mark, low = marks[0], place & layout.PLACES
        if low + count <= layout.PLACES and list(range(mark, mark + count)) == marks:
            if mark >> 60 == layout.FRESH and mark & layout.LOWS == layout.IN_RING | low:
                self._take_all(run, marks)
        else:
            self._take_run(place, run[: count // 2])
            self._take_run(place + count // 2, run[count // 2 :])

    def _take_all(self, cells: Sequence[int], marks: list[int]) -> None:
        mapping, number, count = self._mapping, self._number, len(cells)
        cas, base, top = mapping.cas, mapping.geometry.marks, self._tick | layout.CLAIMED << 60
        # The number grows by one from cell to cell; a mark has its lowest 34 bits.
        first = (number & layout.NUMBERS) << 26 | top
        if number & layout.NUMBERS > layout.NUMBERS - count:
            claimed = [(number + i & layout.NUMBERS) << 26 | top for i in range(count)]
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
        """Read the claimed tasks of neighbouring cells; their numbers count up from *first*."""
        mapping, found = self._mapping, self.found
        none, now, before = layout.NONE, self._now, len(self.found)
        self._holders.sign(cells, first, self._label)
        late: list[tuple[int, int]] = []
        start = mapping.geometry.data + cells[0] * layout.CELL
        rows = layout.TASK.iter_unpack(mapping.mmap[start : start + len(cells) * layout.CELL])
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
                self._held_suspects.add(self._worker, token, weight(crashes, self._max_crashes))
            found.append(
                ClaimedTask(
                    raw.decode("utf-8", "surrogateescape"), token, record, attempts, crashes
                )
            )
        marks = _marks_of(mapping, cells)
        if marks != claimed:
            held = {c for c, old, new in zip(cells, claimed, marks, strict=True) if old == new}
            found[before:] = [item for item in found[before:] if item.token & CELL_OF in held]
        for cell, mark in late:
            # The ttl is over: make them dead as if they had not been claimed.
            self._transitions.bury(cell, mark, b"expired", unclaimed=True)


def _marks_of(mapping: Mapping, cells: Sequence[int]) -> list[int]:
    """Return the marks of neighbouring cells."""
    at = (mapping.geometry.marks >> 3) + cells[0]
    return mapping.words[at : at + len(cells)].tolist()
