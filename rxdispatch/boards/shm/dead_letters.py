"""``DeadLetters``: reads, redrives and discards the dead tasks of a board."""

from __future__ import annotations

from bisect import bisect_right

from rxdispatch.boards.engine import CHUNK, DeadRow
from rxdispatch.boards.shm.event_buffer import EventBuffer
from rxdispatch.boards.shm.local.local_index import LocalIndex
from rxdispatch.boards.shm.local.states import states_of
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.submission import Submission
from rxdispatch.boards.task_codec import id_text, unpack_cause

__all__ = ["DeadLetters"]

_PAGE_BYTES = 2 * 1024 * 1024
"""After this many bytes, a page takes no more letters."""

_Letter = tuple[int, int, int]


class DeadLetters:
    """The dead tasks of a board: lists and redrives them, and discards the oldest."""

    def __init__(
        self,
        cells: Cells,
        local_index: LocalIndex,
        submission: Submission,
        event_buffer: EventBuffer,
    ) -> None:
        self._cells = cells
        self._mapping = cells.mapping
        self._local_index = local_index
        self._submission = submission
        self._event_buffer = event_buffer
        self._seen: list[_Letter] = []
        self._oldest: list[_Letter] = []

    def all(self) -> list[_Letter]:
        """Return the time of death, cell and mark of each dead task, oldest first."""
        mapping, geometry = self._mapping, self._mapping.geometry
        start, stop = geometry.marks, geometry.marks + mapping.load(layout.HIGH) * 8
        for cell, state in enumerate(states_of(mapping.mmap[start:stop])):
            if state in (layout.MOVED, layout.PENDING):
                self._local_index.note(cell)
        raw = mapping.mmap[start:stop]
        marks, found = memoryview(raw).cast("Q"), list[_Letter]()
        for cell, state in enumerate(states_of(raw)):
            if state == layout.DEAD:
                known = self._cells.read(cell, marks[cell])
                if known is not None:
                    found.append((known[0].death, cell, marks[cell]))
        found.sort()
        return found

    def page(self, after: str) -> tuple[list[DeadRow], str]:
        """A page of dead tasks, oldest first, and *after* for the next page."""
        cells, start, page, size = self._cells, int(after or 0), list[DeadRow](), 0
        for fresh in (False, True):
            if fresh or not after:
                self._seen = self.all()
            letters = self._seen
            for at, cell, mark in letters[bisect_right(letters, (start, 1 << 62, 0)) :]:
                known = cells.read(cell, mark)
                if known is None:
                    continue
                head, inline = known
                reason, cause = cells.texts(head)
                raw, record = cells.body(head, inline)
                if cells.mark(cell) != mark:
                    continue
                error, traceback = unpack_cause(cause)
                page.append(
                    DeadRow(
                        id_text(raw),
                        record,
                        reason.decode("utf-8", "replace"),
                        error,
                        head.attempts,
                        head.crashes,
                        at / 1e6,
                        traceback,
                        cells.kinds.name(head.kind, record),
                    )
                )
                after = str(at)
                size += len(record) + len(cause)
                if len(page) == CHUNK or size >= _PAGE_BYTES:
                    return page, after
            if page:
                break
        return page, after

    def revive(self, cell: int, mark: int, now: int) -> int | None:
        """Make a dead task ready at the end of its priority; returns its cell."""
        cells = self._cells
        known = cells.read(cell, mark)
        if known is None:
            return None
        head, inline = known
        fresh = head._replace(attempts=0, crashes=0, expires=0, death=0, due=now, flags=0)
        raw, record = cells.body(head, inline)
        new = cells.move(cell, mark, fresh, inline, layout.READY, last=True)
        if new is not None:
            self._mapping.add(layout.DEAD_GUESS, -1)
            self._event_buffer.note("redriven", raw, record=record)
        return new

    def enforce(self, limit: int) -> None:
        """Discard the oldest if more than *limit* are dead and the submit lock is free."""
        mapping = self._mapping
        if mapping.load(layout.DEAD_GUESS) <= limit or not mapping.try_submit_lock():
            return
        try:
            self._submission.recover()
            fresh = False
            while mapping.load(layout.DEAD_GUESS) > limit:
                if not self._oldest:
                    if fresh:
                        return
                    letters = self.all()
                    fresh = True
                    mapping.store(layout.DEAD_GUESS, len(letters))
                    self._oldest = letters[::-1]
                    continue
                _, cell, mark = self._oldest.pop()
                known = self._cells.read(cell, mark)
                if known is None:
                    continue
                raw, record = self._cells.body(*known)
                if self._submission.discard(cell, mark):
                    mapping.add(layout.DEAD_GUESS, -1)
                    self._event_buffer.note("discarded", raw, record=record)
        finally:
            mapping.submit_unlock()
