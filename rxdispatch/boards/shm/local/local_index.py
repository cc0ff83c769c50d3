"""``LocalIndex``: the index that one process has of ready, scheduled and expiring tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import NamedTuple

from rxdispatch.boards.shm.local.best_first import BestFirst, EntryQueue
from rxdispatch.boards.shm.local.mark_heap import MarkHeap
from rxdispatch.boards.shm.local.ready_queue import ReadyQueue
from rxdispatch.boards.shm.local.states import BEGUN, UNDECIDED, lapses, states_of
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.kind_table import KindChoice
from rxdispatch.boards.shm.storage.layout import number_of

__all__ = ["LocalIndex"]

_PAGE = 512
_PRIORITIES = 64
_OLDEST = 8
"""``oldest`` looks at the first `_OLDEST` tasks of each of the first `_PRIORITIES` priorities."""
_SLICE = 1000
"""How many steps ``oldest`` takes before other tasks of the loop get a turn."""
_NEVER = (1 << 63) - 1
_NOTHING = BestFirst(())
_HALF = 1 << (layout.LOW_BITS - 1)
_READY = frozenset((layout.FRESH, layout.READY))
_LATER = frozenset((layout.FRESH_LATER, layout.LATER))
_IDLE = frozenset((layout.FREE, layout.TAIL))


class _Scan(NamedTuple):
    """
    The result of scanning a page of marks.

    It is valid until a mark changes, *wake* has come, or the ring has passed *place*. The first
    lease lapses at *lapse*.
    """

    raw: bytes
    wake: int
    lapse: int
    place: int
    dead: int


class LocalIndex:
    """
    Heaps of tasks that are ready, scheduled, or have a ttl; those of ready tasks are by kind.

    Hints add tasks to the heaps, and so does a periodic scan of all marks. Each process can rebuild
    its heaps from the marks.

    Tasks without a priority or delay are in the shared ring instead, from which every process takes
    runs of places. If a process dies between taking a run and claiming its tasks, the ring no
    longer leads to these tasks; the next scan of all marks finds them.
    """

    def __init__(
        self,
        cells: Cells,
        lapsed: Callable[[int, int], None],
        forget: Callable[[int, int], None],
        now: int,
    ) -> None:
        self._cells = cells
        self._mapping = cells.mapping
        self._geometry = cells.geometry
        self._lapsed = lapsed
        self._forget = forget
        self._ready: dict[int, ReadyQueue] = {}  # by kind
        self._suspects: dict[int, MarkHeap] = {}  # by kind: ready, with a crash behind them
        self._later = self._heap()
        self._limits = self._heap()
        self._pages: dict[int, _Scan] = {}
        self._hints = self._mapping.load(layout.HINTS)
        self._holes: list[int] = []
        # If there was no hint so far, all tasks are in the ring, and no scan is due.
        self.scanned = -_NEVER if self._hints else now

    # -- hints ---------------------------------------------------------------------------------

    def announce(self, cells: list[int]) -> None:
        """Announce *cells* to all processes."""
        if not cells:
            return
        mapping, ring = self._mapping, self._geometry.hints
        slot = mapping.add(layout.HINTS, len(cells))
        for at, cell in enumerate(cells, slot):
            mapping.store(ring + at % layout.HINT_SLOTS * 8, (at + 1 & 0x3FFFFFFFFF) << 26 | cell)

    def listen(self) -> None:
        """Look at the cells that were announced since the last call."""
        mapping = self._mapping
        end = mapping.load(layout.HINTS)
        if end == self._hints and not self._holes:
            return
        if end - self._hints > layout.HINT_SLOTS - 2048:
            self._hints = end
            self._pages.clear()
            self.scanned = -_NEVER
            return
        holes, self._holes = self._holes, []
        for at in (*holes, *range(self._hints, end)):
            hint = mapping.load(self._geometry.hints + at % layout.HINT_SLOTS * 8)
            if hint >> 26 == at + 1 & 0x3FFFFFFFFF:
                self.note(hint & layout.LOWS)
            elif at + 4096 > end:
                # The process that reserved this slot has not written it yet, or has died.
                self._holes.append(at)
        self._hints = end

    def note(self, cell: int) -> None:
        """Finish what a process began with a cell, and add its task to the heaps."""
        cells = self._cells
        mark = cells.mark(cell)
        state = mark >> layout.STATE_SHIFT
        if state in BEGUN:
            cells.finish(cell, mark)
            if state == layout.MOVED:
                cell = mark & layout.LOWS
            mark = cells.mark(cell)
            state = mark >> layout.STATE_SHIFT
        ready = state in _READY
        if not ready and state not in _LATER:
            return
        if self._uncommitted(state, mark):
            return
        head, _ = cells.head(cell)
        if cells.mark(cell) != mark:
            return
        if head.expires and self._limits.known.get(cell) != mark:
            self._limits.push((head.expires, cell, mark))
        if not ready:
            if self._later.known.get(cell) != mark:
                self._later.push((head.due, head.tie, cell, mark))
            return
        if self._in_ring(mark) is not None:
            return
        kind, entry = head.kind, (-head.priority, head.at, head.tie, cell, mark)
        if head.crashes:
            suspects = self._suspects.get(kind)
            if suspects is None:
                suspects = self._suspects[kind] = self._heap()
            if suspects.known.get(cell) != mark:
                suspects.push(entry)
            return
        queue = self._ready.get(kind)
        if queue is None:
            queue = self._ready[kind] = ReadyQueue(self._heap)
        queue.push(entry)

    def _heap(self) -> MarkHeap:
        return MarkHeap(self._mapping.load, self._geometry.marks)

    def _uncommitted(self, state: int, mark: int) -> bool:
        return state in UNDECIDED and number_of(mark) == self._mapping.load(layout.STAGING)

    def _in_ring(self, mark: int) -> int | None:
        """Return the place of a mark in the ring; None if it has none or the ring has passed it."""
        if mark >> layout.STATE_SHIFT != layout.FRESH or not mark & layout.IN_RING:
            return None
        head, tail = self._mapping.load(layout.RING_HEAD), self._mapping.load(layout.RING_TAIL)
        ahead = (mark - head) & layout.PLACES
        return head + ahead if ahead < tail - head else None

    # -- what is first -------------------------------------------------------------------------

    def ready(self, choice: KindChoice | None) -> EntryQueue:
        """Return the ready tasks outside the ring that a claim may take: see ReadyQueue."""
        return _merged(self._ready, choice)

    def suspects(self, choice: KindChoice | None) -> EntryQueue:
        """Return the ready tasks with a crash behind them, in the form of :meth:`ready`."""
        return _merged(self._suspects, choice)

    def oldest(self) -> Iterator[tuple[int, int] | None]:
        """
        Yield cells and marks of tasks that may be the oldest ready task that this process knows.

        Yields None now and then, so that the caller can let other tasks of the loop run.
        """
        for suspects in tuple(self._suspects.values()):
            while not suspects.tidy(_SLICE):
                yield None
            yield from [(cell, mark) for *_, cell, mark in suspects.some(_OLDEST)]
        for queue in tuple(self._ready.values()):
            yield from self._oldest_of(queue)
        yield from self._oldest_in_ring()

    def _oldest_of(self, queue: ReadyQueue) -> Iterator[tuple[int, int] | None]:
        looked = 0
        for level in queue.priorities():
            while (heap := queue.levels.get(level)) is not None and not heap.tidy(_SLICE):
                yield None
            if heap is None:
                continue
            if heap.top() is None:
                queue.forget(level)
                continue
            # The first may not be the oldest: a delayed task has the place of its submission.
            yield from [(cell, mark) for *_, cell, mark in heap.some(_OLDEST)]
            looked += 1
            if looked == _PRIORITIES:
                break

    def _oldest_in_ring(self) -> Iterator[tuple[int, int] | None]:
        mapping, geometry = self._mapping, self._geometry
        places = iter(range(mapping.load(layout.RING_HEAD), mapping.load(layout.RING_TAIL)))
        while some := list(islice(places, _SLICE)):
            for place in some:
                word = mapping.load(geometry.ring + place % geometry.ring_slots * 8)
                cell = word & layout.NONE
                mark = self._cells.mark(cell)
                if self._in_ring(mark) == place:
                    yield cell, mark
                    return
            yield None

    def due(self, now: int) -> list[tuple[int, int]]:
        """Remove the tasks that are due, and return the cell and mark of each."""
        found: list[tuple[int, int]] = []
        while (wait := self.next_due()) is not None and wait <= now:
            *_, cell, mark = self._later.pop()
            found.append((cell, mark))
        return found

    def next_due(self) -> int | None:
        """Return when the next task is due, in microseconds; None if no task is scheduled."""
        first = self._later.first()
        return None if first is None else first[0]

    def expired(self, now: int) -> list[tuple[int, int]]:
        """Remove the tasks whose ttl is over, and return the cell and mark of each."""
        found: list[tuple[int, int]] = []
        while (top := self._limits.top()) is not None and top[0] <= now:
            _, cell, mark = self._limits.pop()
            if self._cells.mark(cell) == mark:
                found.append((cell, mark))
        return found

    # -- all marks -----------------------------------------------------------------------------

    def scan(self, now: int) -> None:
        """Scan all marks for lapsed leases, unfinished moves, and tasks that no hint announced."""
        mapping, geometry = self._mapping, self._geometry
        self.scanned = now
        tick = now // layout.TICK
        mapping.exchange(layout.EARLIEST, _NEVER)
        ring_head, moves = mapping.load(layout.RING_HEAD), mapping.load(layout.MOVES)
        high, earliest, dead = mapping.load(layout.HIGH), _NEVER, 0
        seats: set[int] = set()
        for start in range(0, high, _PAGE):
            at = geometry.marks + start * 8
            raw = mapping.mmap[at : at + (min(start + _PAGE, high) - start) * 8]
            page = self._pages.get(start)
            if page is None or page.raw != raw or page.wake <= now or page.place < ring_head:
                page = self._pages[start] = self._look(start, raw, tick, seats)
            earliest = min(earliest, page.lapse)
            dead += page.dead
        self.at_latest(earliest)
        if mapping.load(layout.MOVES) == moves:
            # A process that was killed may have left the count wrong.
            mapping.store(layout.DEAD_GUESS, dead)
        for seat in seats:
            if mapping.proven_dead(seat):
                try:
                    self._cells.clean(seat)
                finally:
                    mapping.leave(seat)

    def at_latest(self, time: int) -> None:
        """Make sure that the next scan, in any process, is not later than *time*."""
        mapping = self._mapping
        while (old := mapping.load(layout.EARLIEST)) > time:
            if mapping.cas(layout.EARLIEST, old, time) == old:
                return

    def _look(self, start: int, raw: bytes, tick: int, seats: set[int]) -> _Scan:
        wake = lapse = place = _NEVER
        states = states_of(raw)
        present = set(states) - _IDLE
        if not present:
            return _Scan(raw, wake, lapse, place, 0)
        load = self._mapping.load
        marks = memoryview(raw).cast("Q").tolist()
        rest = present - {layout.FRESH, layout.CLAIMED, layout.DEAD}
        if layout.CLAIMED in present:
            top, lows = layout.CLAIMED, layout.LOWS
            left = [(mark - tick) & lows for mark in marks if mark >> 60 == top]
            # A lease has lapsed if the value is 0 or has wrapped around.
            if min(left) and max(left) < _HALF:
                wake = lapse = (tick + min(left)) * layout.TICK
            else:
                rest.add(layout.CLAIMED)
        if layout.FRESH in present:
            head = load(layout.RING_HEAD)
            length = load(layout.RING_TAIL) - head
            top, places = layout.FRESH, layout.PLACES
            plain = top << layout.STATE_SHIFT | layout.IN_RING
            mask = 15 << layout.STATE_SHIFT | layout.IN_RING
            ahead = [(mark - head) & places for mark in marks if mark & mask == plain]
            # The ring leads to these tasks, unless it has passed them or a submission is under way.
            if (
                load(layout.STAGING)
                or len(ahead) < states.count(layout.FRESH)
                or max(ahead) >= length
            ):
                rest.add(layout.FRESH)
            else:
                place = head + min(ahead)
        if rest:
            for cell, mark in enumerate(marks, start):
                if mark >> 60 in rest:
                    ends, lapsing, standing = self._look_at(cell, mark, tick, seats)
                    wake, lapse, place = min(wake, ends), min(lapse, lapsing), min(place, standing)
        return _Scan(raw, wake, lapse, place, states.count(layout.DEAD))

    def _look_at(self, cell: int, mark: int, tick: int, seats: set[int]) -> tuple[int, int, int]:
        """Scan one mark; returns when to scan it again, when its lease lapses, and its place."""
        state = mark >> layout.STATE_SHIFT
        if state in (layout.CLAIMED, layout.DONE):
            left = lapses(mark, tick)
            if left > 0:
                ends = (tick + left) * layout.TICK
                return ends, ends if state == layout.CLAIMED else _NEVER, _NEVER
            (self._lapsed if state == layout.CLAIMED else self._forget)(cell, mark)
            return 0, _NEVER, _NEVER
        if state == layout.WRITING:
            seats.add(mark & layout.LOWS)
            return 0, _NEVER, _NEVER
        uncommitted = self._uncommitted(state, mark)
        if not uncommitted and (standing := self._in_ring(mark)) is not None:
            return _NEVER, _NEVER, standing
        self.note(cell)
        if state == layout.PENDING:
            seats.add(mark & layout.LOWS)
        return 0 if state in BEGUN or uncommitted else _NEVER, _NEVER, _NEVER


def _merged(queues: Mapping[int, EntryQueue], choice: KindChoice | None) -> EntryQueue:
    """Return the queues of the kinds that a claim may take, as one."""
    if not queues:
        return _NOTHING
    if choice is None:
        chosen = list(queues.values())
    elif choice.only is not None and len(choice.only) < len(queues):
        chosen = [queues[kind] for kind in choice.only if kind in queues]
    else:
        chosen = [queue for kind, queue in queues.items() if choice.allows(kind)]
    return chosen[0] if len(chosen) == 1 else BestFirst(chosen)
