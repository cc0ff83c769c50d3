"""``Submitter``: adds tasks, whole chunks or nothing, under a lock that dies with its owner."""

from __future__ import annotations

from collections.abc import Sequence

from rxdispatch.boards.codec import NewTask, id_bytes
from rxdispatch.boards.shm.local.local_index import states_of
from rxdispatch.boards.shm.storage import layout as lay
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.layout import Head, number_of, word
from rxdispatch.errors import BoardFullError

__all__ = ["Submitter"]


class Submitter:
    """
    What only the holder of the submit lock does.

    The invariant: while STAGING is b, the tasks of number b do not exist. STAGING is set before
    the first of them is marked, and cleared, by one store, when all are there: that is the
    submission. ``STAGED_TAIL`` and ``STAGED_ACCEPTED`` say what the ring's tail and the total
    are from then on, and are not touched while STAGING is 0. So the next holder, whatever his
    predecessor died of, either completes (STAGING is 0) or clears away (it is not).
    """

    def __init__(self, cells: Cells, name: str) -> None:
        self._cells = cells
        self._memory = cells.memory
        self._layout = cells.layout
        self._name = name

    def recover(self) -> None:
        """Complete or clear away what the last holder left; first thing to do with the lock."""
        memory = self._memory
        load, store = memory.load, memory.store
        staging = load(lay.STAGING)
        if staging:
            self._clear(staging)
            store(lay.STAGED_TAIL, load(lay.RING_TAIL))
            store(lay.STAGED_ACCEPTED, load(lay.ACCEPTED))
            store(lay.STAGING, 0)
        self._publish()
        if load(lay.INTENT):
            self._complete_discard()

    def _publish(self) -> None:
        memory = self._memory
        for staged, shown in (
            (lay.STAGED_TAIL, lay.RING_TAIL),
            (lay.STAGED_ACCEPTED, lay.ACCEPTED),
        ):
            value = memory.load(staged)
            if memory.load(shown) != value:
                memory.store(shown, value)

    def _clear(self, number: int) -> None:
        base, cells = self._layout.marks >> 3, self._cells
        for start in range(0, self._memory.load(lay.HIGH), 4096):
            stop = min(start + 4096, self._layout.cells)
            for cell, mark in enumerate(
                self._memory.words[base + start : base + stop].tolist(), start
            ):
                if number_of(mark) == number and mark >> lay.STATE_SHIFT in (
                    lay.FRESH,
                    lay.FRESH_LATER,
                    lay.GONE,
                ):
                    if mark >> lay.STATE_SHIFT == lay.GONE:
                        cells.finish(cell, mark)
                    else:
                        cells.end(cell, mark)

    # -- adding --------------------------------------------------------------------------------

    def add(self, entries: Sequence[NewTask], now: int) -> tuple[list[bool], list[int]]:
        """
        Add tasks.

        Returns:
            For each, whether it is new; and the cells of those that hints must tell of.

        Raises:
            BoardFullError: If there is no room for all of them; none is added.
        """
        cells, memory = self._cells, self._memory
        answers: list[bool] = []
        fresh: list[tuple[NewTask, bytes]] = []
        seen: set[bytes] = set()
        tick = now // lay.TICK
        for entry in entries:
            raw = id_bytes(entry.id)
            new = raw not in seen and not self._known(raw, tick)
            answers.append(new)
            if new:
                seen.add(raw)
                fresh.append((entry, raw))
        if not fresh:
            return answers, []
        needs = [
            1 + -(-max(0, len(raw) + len(e.record) - lay.INLINE) // lay.PIECE) for e, raw in fresh
        ]
        self._make_room(sum(needs))
        number = cells.number()
        taken = cells.allocate(sum(needs), number)
        if taken is None:
            raise BoardFullError(self._name, why="no cell is free")
        told = self._stage(fresh, needs, taken, number, now)
        # This store is the submission.
        memory.add(lay.MOVES, 1)
        memory.store(lay.STAGING, 0)
        self._publish()
        return answers, told

    def _known(self, raw: bytes, tick: int) -> bool:
        found = self._cells.index.find(raw, self._cells)
        if found is None:
            return False
        cell, mark = found
        if mark >> lay.STATE_SHIFT == lay.DONE:
            left = ((mark & lay.LOWS) - tick) & lay.LOWS
            if not 0 < left < 1 << (lay.LOW_BITS - 1):
                self._cells.end(cell, mark)
                return False
        return True

    def _make_room(self, need: int) -> None:
        """Count what is free when the guess is used up; the guess never is too high for long."""
        memory, layout = self._memory, self._layout
        guess = memory.load(lay.FREE_GUESS)
        if guess < need + layout.spare:
            high = memory.load(lay.HIGH)
            states = states_of(memory.map[layout.marks : layout.marks + high * 8])
            guess = layout.cells - high + states.count(lay.FREE)
            memory.store(lay.FREE_GUESS, max(0, guess))
        if guess < need + layout.spare:
            free = max(0, guess - layout.spare)
            raise BoardFullError(self._name, why=f"{need} cells wanted, {free} are free")
        memory.store(lay.FREE_GUESS, guess - need)

    def _stage(
        self,
        fresh: list[tuple[NewTask, bytes]],
        needs: list[int],
        taken: list[int],
        number: int,
        now: int,
    ) -> list[int]:
        memory, layout, cells = self._memory, self._layout, self._cells
        mine = word(lay.WRITING, number, memory.seat)
        memory.store(lay.STAGING, number & lay.NUMBERS)
        tail = memory.load(lay.RING_TAIL)
        room = memory.load(lay.RING_HEAD) + layout.ring_slots
        told: list[int] = []
        start = 0
        for i, ((entry, raw), need) in enumerate(zip(fresh, needs, strict=True)):
            some = taken[start : start + need]
            start += need
            cell = some[0]
            plain = not entry.priority and not entry.delay and tail < room
            body = raw + entry.record
            head = Head(
                birth=number,
                id_size=len(raw),
                body_size=len(body),
                expires=now + max(1, round(entry.ttl * 1e6)) if entry.ttl else 0,
                at=tail if plain else tail - 1,
                tie=0 if plain else number << 10 | i,
                due=now + round(entry.delay * 1e6),
                priority=entry.priority,
            )
            cells.write(some, head, body[: lay.INLINE], body[lay.INLINE :], b"")
            if not cells.index.add(raw, cell, number):
                self._undo()
                raise BoardFullError(self._name, why="too many ids have the same hash")
            if plain:
                memory.store(layout.ring + tail % layout.ring_slots * 8, cell)
                mark = word(lay.FRESH, number, lay.IN_RING | tail & lay.PLACES)
                tail += 1
            else:
                mark = word(lay.FRESH_LATER if entry.delay else lay.FRESH, number)
            cells.swap(cell, mine, mark)
            if not plain or entry.ttl:
                told.append(cell)
        memory.store(lay.STAGED_TAIL, tail)
        memory.store(lay.STAGED_ACCEPTED, memory.load(lay.ACCEPTED) + len(fresh))
        return told

    def _undo(self) -> None:
        self._cells.clean(self._memory.seat)
        self.recover()

    # -- discarding ----------------------------------------------------------------------------

    def discard(self, cell: int, mark: int) -> bool:
        """
        Forget a dead task and count it, exactly once whatever happens.

        INTENT names the number under which it will be marked before it is; so whoever finds
        the mark knows whether it was counted.
        """
        memory, cells = self._memory, self._cells
        number = cells.number()
        memory.store(lay.INTENT_CELL, cell)
        memory.store(lay.INTENT_TOTAL, memory.load(lay.DISCARDED) + 1)
        memory.store(lay.INTENT, number & lay.NUMBERS)
        won = cells.swap(cell, mark, word(lay.DISCARD, number))
        self._complete_discard()
        return won

    def _complete_discard(self) -> None:
        memory = self._memory
        cell = memory.load(lay.INTENT_CELL)
        marked = word(lay.DISCARD, memory.load(lay.INTENT))
        if self._cells.mark(cell) == marked:
            memory.store(lay.DISCARDED, memory.load(lay.INTENT_TOTAL))
        memory.store(lay.INTENT, 0)
        self._cells.finish(cell, marked)
