"""``Cells``: stores versions of tasks; a new version replaces an old one by one swap."""

from __future__ import annotations

from collections.abc import Iterator

from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.index import Index
from rxdispatch.boards.shm.storage.kind_table import KindTable
from rxdispatch.boards.shm.storage.layout import CELL, HEAD, NONE, Head, make_mark, number_of
from rxdispatch.boards.shm.storage.mapping import Mapping
from rxdispatch.errors import BoardFullError

__all__ = ["Cells"]

_STASH = 4096
_ID_SIZE, _KIND = layout.ID_SIZE_AT, layout.KIND_AT
_UNDECIDED = (layout.FRESH, layout.FRESH_LATER)


class Cells:
    """
    Takes, writes, replaces and frees cells.

    INVARIANT. The bytes of a cell change only while its mark is WRITING, and only the participant
    that the mark names changes them. Every other change is a compare-and-swap of a mark that never
    comes back: after a process was stopped, however long, its swap finds the same mark or fails.
    What a participant leaves half-done has the mark MOVED, PENDING, GONE, DISCARD or ABORT, and any
    process finishes it (:meth:`finish`); or it has the mark WRITING, and is cleared once the
    participant is proven dead (:meth:`clean`).
    """

    def __init__(self, mapping: Mapping, name: str) -> None:
        self.mapping = mapping
        self.geometry = mapping.geometry
        self.index = Index(mapping)
        self.kinds = KindTable(mapping)
        self.stash: list[int] = []
        self._name = name
        self._marks = mapping.geometry.marks
        self._data = mapping.geometry.data

    # -- reading -----------------------------------------------------------------------------

    def mark(self, cell: int) -> int:
        """Return the mark of a cell."""
        return self.mapping.load(self._marks + cell * 8)

    def swap(self, cell: int, old: int, new: int) -> bool:
        """Change the mark of a cell from *old* to *new*; returns False if it is not *old*."""
        return self.mapping.cas(self._marks + cell * 8, old, new) == old

    def head(self, cell: int) -> tuple[Head, bytes]:
        """Return a head and its inline bytes; the caller must check the mark again afterwards."""
        start = self._data + cell * CELL
        raw = self.mapping.mmap[start : start + CELL]
        return Head._make(HEAD.unpack_from(raw)), raw[HEAD.size :]

    def read(self, cell: int, mark: int) -> tuple[Head, bytes] | None:
        """Return a head and its inline bytes; None if the mark is not *mark*."""
        known = self.head(cell)
        return known if self.mark(cell) == mark else None

    def body(self, head: Head, inline: bytes) -> tuple[bytes, bytes]:
        """Return the id and the record."""
        size = head.body_size
        if size <= layout.INLINE:
            return inline[: head.id_size], inline[head.id_size : size]
        whole = inline + self.chain(head.chain, size - layout.INLINE)
        return whole[: head.id_size], whole[head.id_size :]

    def kind(self, cell: int) -> int:
        """Return the kind of a head; the caller must check the mark again afterwards."""
        at = self._data + cell * CELL + _KIND
        return int.from_bytes(self.mapping.mmap[at : at + 2], "little")

    def texts(self, head: Head) -> tuple[bytes, bytes]:
        """Return the reason and the error; empty if there is none."""
        if head.text == NONE:
            return b"", b""
        both = self.chain(head.text, head.reason_size + head.error_size)
        return both[: head.reason_size], both[head.reason_size :]

    def chain(self, first: int, size: int) -> bytes:
        """Return *size* bytes of the chain of tails that begins at cell *first*."""
        parts: list[bytes] = []
        while size > 0 and first < self.geometry.cells:
            start = self._data + first * CELL
            raw = self.mapping.mmap[start : start + CELL]
            parts.append(raw[8 : 8 + size])
            size -= layout.PIECE
            first = int.from_bytes(raw[:4], "little")
        return b"".join(parts)

    def find(self, raw: bytes) -> tuple[int, int] | None:
        """Return the cell and mark of the task with that id, even if it is done and remembered."""
        for cell in self.index.candidates(raw):
            mark = self._mark_if(cell, raw)
            if mark:
                return cell, mark
        return None

    def _mark_if(self, cell: int, raw: bytes) -> int:
        """Return the mark of *cell* if it holds the task with that id, else 0."""
        load, at = self.mapping.load, self._marks + cell * 8
        while True:
            mark = load(at)
            state = mark >> layout.STATE_SHIFT
            if state in layout.NO_TASK:
                return 0
            if state in (layout.MOVED, layout.PENDING):
                self.finish(cell, mark)
                if state == layout.MOVED or load(at) == mark:
                    return 0
                continue
            if state in _UNDECIDED and number_of(mark) == load(layout.STAGING):
                return 0
            same = self._has_id(cell, raw)
            if load(at) == mark:
                return mark if same else 0

    def _has_id(self, cell: int, raw: bytes) -> bool:
        """Whether a head has that id; the caller must check the mark again afterwards."""
        size = len(raw)
        start = self._data + cell * CELL
        data = self.mapping.mmap
        if int.from_bytes(data[start + _ID_SIZE : start + _KIND], "little") != size:
            return False
        if size <= layout.INLINE:
            return data[start + HEAD.size : start + HEAD.size + size] == raw
        return self.body(*self.head(cell))[0] == raw

    # -- taking and writing ------------------------------------------------------------------

    def number(self) -> int:
        """Return a number that was never used before."""
        return self.mapping.add(layout.NUMBER, 1)

    def allocate(self, count: int, number: int) -> list[int] | None:
        """Take *count* free cells; returns None if there are fewer."""
        mapping, marks = self.mapping, self._marks
        mine = make_mark(layout.WRITING, number, mapping.seat)
        taken: list[int] = []
        for cell in self._candidates(count):
            mark = mapping.load(marks + cell * 8)
            if mark >> layout.STATE_SHIFT == layout.FREE and self.swap(cell, mark, mine):
                taken.append(cell)
                if len(taken) == count:
                    # Neighbouring cells are cheaper to claim.
                    taken.sort()
                    return taken
        self.give_up(taken, number)
        return None

    def give_up(self, taken: list[int], number: int) -> None:
        """Free cells that were taken but not used."""
        mine = make_mark(layout.WRITING, number, self.mapping.seat)
        for cell in taken:
            self.swap(cell, mine, make_mark(layout.FREE, number))

    def _candidates(self, count: int) -> Iterator[int]:
        """Yield cells that may be free: recently freed ones, some at the cursor, new ones, all."""
        mapping, total = self.mapping, self.geometry.cells
        while self.stash:
            yield self.stash.pop()
        high, start = mapping.load(layout.HIGH), mapping.load(layout.CURSOR)
        if start >= high:
            start = 0
        stop = min(high, start + 2 * count + 256)
        mapping.store(layout.CURSOR, stop)
        yield from self._free_among(start, stop)
        while (high := mapping.load(layout.HIGH)) < total:
            # HIGH is raised before the cells are taken, so that a scan never misses a cell.
            more = min(total, high + count)
            if mapping.cas(layout.HIGH, high, more) == high:
                yield from range(high, more)
        for first in range(0, total, 4096):
            yield from self._free_among(first, min(total, first + 4096))

    def _free_among(self, start: int, stop: int) -> list[int]:
        base = self._marks >> 3
        limit = 1 << layout.STATE_SHIFT
        marks = self.mapping.words[base + start : base + stop].tolist()
        return [cell for cell, mark in enumerate(marks, start) if mark < limit]

    def write(self, cells: list[int], head: Head, inline: bytes, more: bytes, text: bytes) -> None:
        """
        Write a version into cells that were taken: a head, the tails of its body and of its text.

        The birth is written last. If it equals the number in the mark WRITING, everything else is
        there, and a process that cleans up after a death can follow the chains.
        """
        mapping, number = self.mapping, head.birth
        body = -(-len(more) // layout.PIECE)
        body_tails, text_tails = cells[1 : 1 + body], cells[1 + body :]
        self._write_tails(body_tails, more)
        self._write_tails(text_tails, text)
        if body_tails:
            head = head._replace(chain=body_tails[0], chain_number=number & layout.NUMBERS)
        head = head._replace(
            text=text_tails[0] if text_tails else NONE, text_number=number & layout.NUMBERS
        )
        start = self._data + cells[0] * CELL
        mapping.put(start + 8, HEAD.pack(*head)[8:] + inline)
        mapping.store(start, number)
        mine = make_mark(layout.WRITING, number, mapping.seat)
        for tails in (body_tails, text_tails):
            # From the first to the last, so that the head leads to every TAIL.
            for cell in tails:
                self.swap(cell, mine, make_mark(layout.TAIL, number))

    def _write_tails(self, cells: list[int], data: bytes) -> None:
        for i, cell in enumerate(cells):
            after = cells[i + 1] if i + 1 < len(cells) else NONE
            piece = data[i * layout.PIECE : (i + 1) * layout.PIECE]
            self.mapping.put(
                self._data + cell * CELL, (layout.LINK | after).to_bytes(8, "little") + piece
            )

    # -- replacing -----------------------------------------------------------------------------

    def move(
        self,
        cell: int,
        mark: int,
        head: Head,
        inline: bytes,
        final: int,
        *,
        text: tuple[bytes, bytes] = (b"", b""),
        last: bool = False,
    ) -> int | None:
        """
        Replace a version by one with *head*, and return its cell.

        Returns None if the mark is no longer *mark*.

        Args:
            cell: The cell of the old version.
            mark: The mark of that cell.
            head: The new head; birth, text and the fields of the old version are filled in.
            inline: The inline bytes of the old version.
            final: The state of the new version.
            text: The reason and the error; they are dropped if there is no room for them.
            last: Whether the task joins the end of its priority.

        Raises:
            BoardFullError: If no cell is free.
        """
        mapping, number = self.mapping, self.number()
        both = text[0] + text[1]
        cells = self.allocate(1 + -(-len(both) // layout.PIECE), number)
        if cells is None and both:
            # There is no room for the texts.
            text, both = (b"", b""), b""
            cells = self.allocate(1, number)
        if cells is None:
            raise BoardFullError(self._name, why="no cell is free")
        if last:
            head = head._replace(at=mapping.load(layout.RING_TAIL) - 1, tie=number << 10)
        head = head._replace(
            birth=number,
            final=final,
            reason_size=len(text[0]),
            error_size=len(text[1]),
            old_word=mark,
            old_cell=cell,
            old_birth=head.birth & 0x3FFFFFFF,
        )
        self.write(cells, head, inline, b"", both)
        new = cells[0]
        pending = make_mark(layout.PENDING, number, mapping.seat)
        self.swap(new, make_mark(layout.WRITING, number, mapping.seat), pending)
        # Counted before the decision, so that a reader that sees the same number twice has missed
        # no move.
        mapping.add(layout.MOVES, 1)
        if final != layout.DEAD:
            self.kinds.arrives(head.kind)
        moved = make_mark(layout.MOVED, number, new)
        if not self.swap(cell, mark, moved):
            if self.swap(new, pending, aborted := make_mark(layout.ABORT, number)):
                self.finish(new, aborted)
            return None
        self.finish(cell, moved)
        return new

    # -- finishing -----------------------------------------------------------------------------

    def end(self, cell: int, mark: int) -> bool:
        """Free a task and its tails; returns False if its mark is not *mark*."""
        gone = make_mark(layout.GONE, number_of(mark))
        if not self.swap(cell, mark, gone):
            return False
        self.finish(cell, gone)
        return True

    def finish(self, cell: int, mark: int) -> None:
        """Finish what a process began with a cell, if there is something to finish."""
        state = mark >> layout.STATE_SHIFT
        if state == layout.MOVED:
            self._finish_move(cell, mark)
        elif state == layout.PENDING:
            self._finish_pending(cell, mark)
        elif state in (layout.GONE, layout.ABORT) or (
            state == layout.DISCARD and self.mapping.load(layout.INTENT) != number_of(mark)
        ):
            head, _ = self.head(cell)
            if self.mark(cell) != mark:
                return
            # An aborted version has the same body as the version before it.
            if state != layout.ABORT:
                self.free_chain(head.chain, head.chain_number)
            self.free_chain(head.text, head.text_number)
            self._free(cell, mark)

    def _finish_move(self, old: int, moved: int) -> None:
        number, new = number_of(moved), moved & layout.LOWS
        mark = self.mark(new)
        if mark >> layout.STATE_SHIFT == layout.PENDING and number_of(mark) == number:
            head, inline = self.head(new)
            raw = self.body(head, inline)[0]
            if self.mark(new) == mark:
                # The index changes first, so that an id always leads to a cell that holds its task.
                self.index.replace(raw, old, head.old_birth, new, head.birth)
                self.swap(new, mark, make_mark(head.final, number))
        head, _ = self.head(old)
        if self.mark(old) == moved:
            self.free_chain(head.text, head.text_number)
            self._free(old, moved)

    def _finish_pending(self, new: int, mark: int) -> None:
        head, _ = self.head(new)
        if self.mark(new) != mark:
            return
        old = self.mark(head.old_cell)
        number = number_of(mark)
        if old == make_mark(layout.MOVED, number, new):
            self._finish_move(head.old_cell, old)
        elif old != head.old_word and self.swap(
            new, mark, aborted := make_mark(layout.ABORT, number)
        ):
            # Marks never come back, so the move was not decided and never will be. If it had been,
            # the old mark would be MOVED until the new one is no longer PENDING.
            self.finish(new, aborted)

    def free_chain(self, first: int, number: int) -> None:
        """Free tails from the last to the first, so that the head still leads to the others."""
        tail, cells = make_mark(layout.TAIL, number), self.geometry.cells
        found: list[int] = []
        while first < cells and self.mark(first) == tail:
            after = self.mapping.load(self._data + first * CELL) & NONE
            if self.mark(first) != tail:
                break
            found.append(first)
            first = after
        for cell in reversed(found):
            self.swap(cell, tail, make_mark(layout.FREE, number))

    def _free(self, cell: int, mark: int) -> None:
        if (
            self.swap(cell, mark, make_mark(layout.FREE, number_of(mark)))
            and len(self.stash) < _STASH
        ):
            self.stash.append(cell)

    # -- after a death ---------------------------------------------------------------------------

    def clean(self, seat: int) -> None:
        """Free what a seat has left half-done; the seat must be our own, or locked as dead."""
        base = self._marks >> 3
        for start in range(0, self.mapping.load(layout.HIGH), 4096):
            stop = min(start + 4096, self.geometry.cells)
            for cell, mark in enumerate(
                self.mapping.words[base + start : base + stop].tolist(), start
            ):
                state = mark >> layout.STATE_SHIFT
                if state == layout.WRITING and mark & layout.LOWS == seat:
                    self._clear(cell, mark)
                elif state == layout.PENDING and mark & layout.LOWS == seat:
                    self.finish(cell, mark)
                    aborted = make_mark(layout.ABORT, number_of(mark))
                    head, _ = self.head(cell)
                    if self.mark(head.old_cell) == head.old_word and self.swap(cell, mark, aborted):
                        self.finish(cell, aborted)

    def _clear(self, cell: int, mark: int) -> None:
        head, _ = self.head(cell)
        number = number_of(mark)
        if not head.birth & layout.LINK and head.birth & layout.NUMBERS == number:
            if head.chain_number == number:
                self.free_chain(head.chain, number)
            self.free_chain(head.text, number)
        self.swap(cell, mark, make_mark(layout.FREE, number))
