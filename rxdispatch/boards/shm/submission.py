"""``Submission``: adds a chunk of tasks or none, under a lock that ends with its holder."""

from __future__ import annotations

from collections.abc import Sequence

from rxdispatch.boards.shm.local.states import states_of
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.kind_table import DEFAULT
from rxdispatch.boards.shm.storage.layout import Head, make_mark, number_of
from rxdispatch.boards.task_codec import NewTask, id_bytes
from rxdispatch.errors import BoardFullError

__all__ = ["Submission"]


class Submission:
    """
    The work of the process that holds the submit lock: it adds tasks and discards dead letters.

    INVARIANT. While STAGING is n, the tasks of number n do not exist. The process sets STAGING
    before it marks the first of them, and clears it by one store when all are there. That store is
    the submission. ``STAGED_TAIL`` and ``STAGED_ACCEPTED`` are the ring's tail and the total that
    apply from then on, and do not change while STAGING is 0. So if the process dies at any point,
    the next holder of the lock completes the submission (STAGING is 0) or removes it (otherwise).
    """

    def __init__(self, cells: Cells, name: str) -> None:
        self._cells = cells
        self._mapping = cells.mapping
        self._geometry = cells.geometry
        self._name = name

    def recover(self) -> None:
        """Complete or remove what the last holder left; call this first after taking the lock."""
        mapping = self._mapping
        load, store = mapping.load, mapping.store
        staging = load(layout.STAGING)
        if staging:
            self._clear(staging)
            store(layout.STAGED_TAIL, load(layout.RING_TAIL))
            store(layout.STAGED_ACCEPTED, load(layout.ACCEPTED))
            store(layout.STAGING, 0)
        self._publish()
        if load(layout.INTENT):
            self._complete_discard()

    def _publish(self) -> None:
        mapping = self._mapping
        for staged, shown in (
            (layout.STAGED_TAIL, layout.RING_TAIL),
            (layout.STAGED_ACCEPTED, layout.ACCEPTED),
        ):
            value = mapping.load(staged)
            if mapping.load(shown) != value:
                mapping.store(shown, value)

    def _clear(self, number: int) -> None:
        base, cells = self._geometry.marks >> 3, self._cells
        for start in range(0, self._mapping.load(layout.HIGH), 4096):
            stop = min(start + 4096, self._geometry.cells)
            for cell, mark in enumerate(
                self._mapping.words[base + start : base + stop].tolist(), start
            ):
                if number_of(mark) == number and mark >> layout.STATE_SHIFT in (
                    layout.FRESH,
                    layout.FRESH_LATER,
                    layout.GONE,
                ):
                    if mark >> layout.STATE_SHIFT == layout.GONE:
                        cells.finish(cell, mark)
                    else:
                        cells.end(cell, mark)

    # -- adding --------------------------------------------------------------------------------

    def add(self, entries: Sequence[NewTask], now: int) -> tuple[list[bool], list[int]]:
        """
        Add tasks.

        Returns:
            For each entry, whether it is new; and the cells to announce by hints.

        Raises:
            BoardFullError: If there is no room for all of them; then none is added.
            ConfigError: If the board cannot have so many kinds; then none is added.
        """
        cells, mapping = self._cells, self._mapping
        answers: list[bool] = []
        fresh: list[tuple[NewTask, bytes, int]] = []
        seen: set[bytes] = set()
        tick = now // layout.TICK
        for entry in entries:
            raw = id_bytes(entry.id)
            new = raw not in seen and not self._known(raw, tick)
            answers.append(new)
            if new:
                seen.add(raw)
                kind = 0 if entry.kind == DEFAULT else cells.kinds.registered(entry.kind)
                fresh.append((entry, raw, kind))
        if not fresh:
            return answers, []
        needs = [
            1 + -(-max(0, len(raw) + len(e.record) - layout.INLINE) // layout.PIECE)
            for e, raw, _ in fresh
        ]
        self._make_room(sum(needs))
        number = cells.number()
        taken = cells.allocate(sum(needs), number)
        if taken is None:
            raise BoardFullError(self._name, why="no cell is free")
        hinted = self._stage(fresh, needs, taken, number, now)
        # This store is the submission.
        mapping.add(layout.MOVES, 1)
        for kind in {item[2] for item in fresh}:
            cells.kinds.arrives(kind)
        mapping.store(layout.STAGING, 0)
        self._publish()
        return answers, hinted

    def _known(self, raw: bytes, tick: int) -> bool:
        found = self._cells.find(raw)
        if found is None:
            return False
        cell, mark = found
        if mark >> layout.STATE_SHIFT == layout.DONE:
            left = ((mark & layout.LOWS) - tick) & layout.LOWS
            if not 0 < left < 1 << (layout.LOW_BITS - 1):
                self._cells.end(cell, mark)
                return False
        return True

    def _make_room(self, need: int) -> None:
        """Reserve *need* cells; count the free cells if FREE_GUESS says that there are too few."""
        mapping, geometry = self._mapping, self._geometry
        guess = mapping.load(layout.FREE_GUESS)
        if guess < need + geometry.spare:
            high = mapping.load(layout.HIGH)
            states = states_of(mapping.mmap[geometry.marks : geometry.marks + high * 8])
            guess = geometry.cells - high + states.count(layout.FREE)
            mapping.store(layout.FREE_GUESS, max(0, guess))
        if guess < need + geometry.spare:
            free = max(0, guess - geometry.spare)
            raise BoardFullError(self._name, why=f"{need} cells wanted, {free} are free")
        mapping.store(layout.FREE_GUESS, guess - need)

    def _stage(
        self,
        fresh: list[tuple[NewTask, bytes, int]],
        needs: list[int],
        taken: list[int],
        number: int,
        now: int,
    ) -> list[int]:
        mapping, geometry, cells = self._mapping, self._geometry, self._cells
        mine = make_mark(layout.WRITING, number, mapping.seat)
        mapping.store(layout.STAGING, number & layout.NUMBERS)
        tail = mapping.load(layout.RING_TAIL)
        room = mapping.load(layout.RING_HEAD) + geometry.ring_slots
        hinted: list[int] = []
        shift = layout.KIND_SHIFT
        start = 0
        for i, ((entry, raw, kind), need) in enumerate(zip(fresh, needs, strict=True)):
            some = taken[start : start + need]
            start += need
            cell = some[0]
            plain = not entry.priority and not entry.delay and tail < room
            body = raw + entry.record
            head = Head(
                birth=number,
                id_size=len(raw),
                kind=kind,
                body_size=len(body),
                expires=now + max(1, round(entry.ttl * 1e6)) if entry.ttl else 0,
                at=tail if plain else tail - 1,
                tie=0 if plain else number << 10 | i,
                due=now + round(entry.delay * 1e6),
                priority=entry.priority,
            )
            cells.write(some, head, body[: layout.INLINE], body[layout.INLINE :], b"")
            if not cells.index.add(raw, cell, number):
                self._undo()
                raise BoardFullError(self._name, why="too many ids have the same hash")
            if plain:
                word = kind << shift | cell
                mapping.store(geometry.ring + tail % geometry.ring_slots * 8, word)
                mark = make_mark(layout.FRESH, number, layout.IN_RING | tail & layout.PLACES)
                tail += 1
            else:
                mark = make_mark(layout.FRESH_LATER if entry.delay else layout.FRESH, number)
            cells.swap(cell, mine, mark)
            if not plain or entry.ttl:
                hinted.append(cell)
        mapping.store(layout.STAGED_TAIL, tail)
        mapping.store(layout.STAGED_ACCEPTED, mapping.load(layout.ACCEPTED) + len(fresh))
        return hinted

    def _undo(self) -> None:
        self._cells.clean(self._mapping.seat)
        self.recover()

    # -- discarding ----------------------------------------------------------------------------

    def discard(self, cell: int, mark: int) -> bool:
        """
        Discard a dead task and count it exactly once, even if this process dies in between.

        INTENT gets the number of the new mark before the mark is written, so a process that finds
        the mark knows whether the task was counted.
        """
        mapping, cells = self._mapping, self._cells
        number = cells.number()
        mapping.store(layout.INTENT_CELL, cell)
        mapping.store(layout.INTENT_TOTAL, mapping.load(layout.DISCARDED) + 1)
        mapping.store(layout.INTENT, number & layout.NUMBERS)
        won = cells.swap(cell, mark, make_mark(layout.DISCARD, number))
        self._complete_discard()
        return won

    def _complete_discard(self) -> None:
        mapping = self._mapping
        cell = mapping.load(layout.INTENT_CELL)
        marked = make_mark(layout.DISCARD, mapping.load(layout.INTENT))
        if self._cells.mark(cell) == marked:
            mapping.store(layout.DISCARDED, mapping.load(layout.INTENT_TOTAL))
        mapping.store(layout.INTENT, 0)
        self._cells.finish(cell, marked)
