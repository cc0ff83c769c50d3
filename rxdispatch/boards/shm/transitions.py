"""``Transitions``: changes the state of a task by one compare-and-swap."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from rxdispatch.boards.shm.event_buffer import EventBuffer
from rxdispatch.boards.shm.holders import Holders
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.layout import Head, make_mark, number_of
from rxdispatch.boards.shm.storage.stored_options import StoredOptions
from rxdispatch.boards.task_codec import pack_cause
from rxdispatch.claim import Settlement
from rxdispatch.results import EventKind

__all__ = ["BIG", "CELL_OF", "TRACEBACK", "Transitions"]

BIG: Final = 1 << 26
"""The bit of a token that says that the task has more than one cell."""
CELL_OF: Final = BIG - 1
"""The bits of a token that are the task's cell."""

TRACEBACK: Final = 2048
"""How many bytes of a traceback a dead letter keeps, in up to 12 cells."""
_FULL: Final = 48
"""A new dead letter keeps its traceback while there is less than one letter for this many cells.
So letters with a traceback take about a quarter of the board at most."""


class Transitions:
    """
    Changes the state of a task, if its mark is still the one that the caller has seen.

    A token consists of the number of the claim (from one counter of the board), a bit that says
    whether the task has more than one cell, and its cell. So a token leads to the mark without the
    id.
    """

    def __init__(
        self,
        cells: Cells,
        holders: Holders,
        options: StoredOptions,
        event_buffer: EventBuffer,
        clock: Callable[[], int],
    ) -> None:
        self._cells = cells
        self._mapping = cells.mapping
        self._holders = holders
        self._options = options
        self._event_buffer = event_buffer
        self._clock = clock

    def held(self, token: int) -> int | None:
        """Return the mark of a claim; None if the claim has ended."""
        mark = self._cells.mark(token & CELL_OF)
        if (
            mark >> layout.LOW_BITS
            == layout.CLAIMED << layout.NUMBER_BITS | token >> 27 & layout.NUMBERS
        ):
            return mark
        return None

    # -- claims ----------------------------------------------------------------------------------

    def settle(self, ending: Settlement, now: int, hinted: list[int]) -> bool:
        """End one claim; append the task's cell to *hinted* if it is unfinished."""
        token = ending.claim.token
        cell = token & CELL_OF
        while (mark := self.held(token)) is not None:
            known = self._cells.read(cell, mark)
            if known is not None and self._settle(ending, cell, mark, *known, now, hinted):
                return True
        return False

    def _settle(
        self,
        ending: Settlement,
        cell: int,
        mark: int,
        head: Head,
        inline: bytes,
        now: int,
        hinted: list[int],
    ) -> bool:
        cells, verdict, heard = self._cells, ending.verdict, self._event_buffer.heard
        expired = 0 < head.expires <= now
        due = now + round(ending.delay * 1e6)
        kind: EventKind
        # These are read before the mark changes, because afterwards the cell may be reused.
        raw, record = cells.body(head, inline) if heard else (b"", b"")
        worker = self._holders.of(cell, mark) if heard else b""
        again: int | None = None
        if verdict == "done":
            kind = "done"
            if not self._done(cell, mark, now):
                return False
        elif verdict == "released" and not expired:
            kind = "released"
            if not ending.delay:
                again = (
                    cell
                    if cells.swap(cell, mark, make_mark(layout.READY, number_of(mark)))
                    else None
                )
            else:
                later = head._replace(due=due, flags=0)
                again = cells.move(cell, mark, later, inline, layout.LATER, text=cells.texts(head))
        elif verdict == "retry" and not expired:
            kind = "retried"
            later = head._replace(
                attempts=head.attempts + 1, due=due, flags=layout.TO_END if ending.delay else 0
            )
            final = layout.LATER if ending.delay else layout.READY
            text = b"", pack_cause(ending.error)
            again = cells.move(cell, mark, later, inline, final, text=text, last=True)
        else:
            released = verdict == "released"
            return self.bury(
                cell,
                mark,
                ending.reason.encode("utf-8", "replace") if verdict == "dead" else b"expired",
                error=None if released else self._cause(ending),
                attempts=0 if released else 1,
            )
        if kind != "done":
            if again is None:
                return False
            hinted.append(again)
        self._event_buffer.note(
            kind, raw, worker, ending.claim.token, head.attempts + 1, record=record
        )
        return True

    def _cause(self, ending: Settlement) -> bytes:
        """Return the error, and the traceback unless dead letters take much of the board."""
        room = self._mapping.load(layout.DEAD_GUESS) * _FULL < self._mapping.geometry.cells
        return pack_cause(ending.error, ending.traceback, TRACEBACK if room else 0)

    def _done(self, cell: int, mark: int, now: int) -> bool:
        remember = self._options.remember
        if not remember:
            return self._cells.end(cell, mark)
        until = -(-(now + round(remember * 1e6)) // layout.TICK) & layout.LOWS
        return self._cells.swap(cell, mark, make_mark(layout.DONE, number_of(mark), until))

    def lapse(self, cell: int, mark: int) -> int | None:
        """End a claim whose lease has lapsed; returns the cell of the ready task, or None."""
        cells = self._cells
        known = cells.read(cell, mark)
        if known is None:
            return None
        head, inline = known
        limit = self._options.max_crashes
        if head.crashes + 1 > limit or 0 < head.expires <= self._clock():
            reason = b"crashed" if head.crashes + 1 > limit else b"expired"
            self.bury(cell, mark, reason, crashes=1)
            return None
        raw, record = cells.body(head, inline)
        worker, token = self._holders.of(cell, mark), self._token(cell, mark)
        again = head._replace(crashes=head.crashes + 1)
        new = cells.move(cell, mark, again, inline, layout.READY, text=cells.texts(head))
        if new is not None:
            self._event_buffer.note("crashed", raw, worker, token, head.attempts + 1, record=record)
        return new

    def forget(self, cell: int, mark: int) -> None:
        """Free the cell of a done task that the board need not remember any more."""
        self._cells.end(cell, mark)

    # -- tasks -----------------------------------------------------------------------------------

    def ready(self, cell: int, mark: int) -> int | None:
        """Make a scheduled task ready; returns its cell, or None if its mark is not *mark*."""
        cells = self._cells
        known = cells.read(cell, mark)
        if known is None:
            return None
        head, inline = known
        if not head.flags & layout.TO_END:
            return (
                cell if cells.swap(cell, mark, make_mark(layout.READY, number_of(mark))) else None
            )
        text = cells.texts(head)
        return cells.move(
            cell, mark, head._replace(flags=0), inline, layout.READY, text=text, last=True
        )

    def cancel(self, raw: bytes) -> int | None:
        """Make the task with this id dead; returns its state before, None if that cannot be."""
        while (found := self._cells.find(raw)) is not None:
            cell, mark = found
            state = mark >> layout.STATE_SHIFT
            if state in (layout.DEAD, layout.DONE):
                return None
            if self.bury(cell, mark, b"cancelled"):
                return state
        return None

    def bury(
        self,
        cell: int,
        mark: int,
        reason: bytes,
        *,
        error: bytes | None = None,
        attempts: int = 0,
        crashes: int = 0,
        unclaimed: bool = False,
    ) -> bool:
        """Make a task dead if its mark is still *mark*."""
        cells, event_buffer = self._cells, self._event_buffer
        known = cells.read(cell, mark)
        if known is None:
            return False
        head, inline = known
        raw, record = cells.body(head, inline)
        text = (reason, cells.texts(head)[1] if error is None else error)
        worker, token, attempt = b"", 0, 0
        if mark >> layout.STATE_SHIFT == layout.CLAIMED and not unclaimed:
            worker, token = self._holders.of(cell, mark), self._token(cell, mark)
            attempt = 1 + head.attempts
        dead = head._replace(
            attempts=head.attempts + attempts,
            crashes=head.crashes + crashes,
            expires=0,
            death=self._time_of_death(),
        )
        if cells.move(cell, mark, dead, inline, layout.DEAD, text=text) is None:
            return False
        self._mapping.add(layout.DEAD_GUESS, 1)
        event_buffer.ended = event_buffer.buried = True
        if crashes:
            event_buffer.note("crashed", raw, worker, token, attempt, record=record)
        event_buffer.note("dead", raw, worker, token, attempt, reason, record=record)
        return True

    def _token(self, cell: int, mark: int) -> int:
        """Return the token of a claim; the bits that its mark does not have come from NUMBER."""
        now, number = self._mapping.load(layout.NUMBER), number_of(mark)
        whole = now - ((now - number) & layout.NUMBERS)
        start = self._mapping.geometry.data + cell * layout.CELL
        tails = layout.TASK.unpack_from(self._mapping.mmap, start)[5:7]
        return whole << 27 | (BIG if tails != (layout.NONE, layout.NONE) else 0) | cell

    def _time_of_death(self) -> int:
        mapping = self._mapping
        while True:
            last = mapping.load(layout.LAST_DEATH)
            at = max(time.time_ns() // 1000, last + 1)
            if mapping.cas(layout.LAST_DEATH, last, at) == last:
                return at
