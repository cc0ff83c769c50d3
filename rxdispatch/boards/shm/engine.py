"""``SharedEngine``: the atomic steps of a board as words of shared memory."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Sequence

from reactivex import Observable

from rxdispatch.boards.cause import unpack_cause
from rxdispatch.boards.codec import NewTask, id_bytes
from rxdispatch.boards.engine import (
    CHUNK,
    ClaimedTask,
    ClaimReply,
    DeadRow,
    Options,
    Signal,
    StoredState,
    Unfinished,
)
from rxdispatch.boards.shm.claiming import Taker
from rxdispatch.boards.shm.dead_letters import Letters
from rxdispatch.boards.shm.event_buffer import Journal
from rxdispatch.boards.shm.holders import Labels
from rxdispatch.boards.shm.local.held_suspects import Holds
from rxdispatch.boards.shm.local.local_index import Finder, lapses
from rxdispatch.boards.shm.notifier import News
from rxdispatch.boards.shm.storage import layout as lay
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.layout import word
from rxdispatch.boards.shm.storage.mapping import Memory
from rxdispatch.boards.shm.storage.stored_options import StoredOptions
from rxdispatch.boards.shm.submission import Submitter
from rxdispatch.boards.shm.transitions import BIG, Endings
from rxdispatch.claim import Settlement
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.results import Counts, TaskEvent
from rxdispatch.task import Status

__all__ = ["SharedEngine"]

_SCAN = 1_500_000
"""Microseconds after which all marks are looked at again, for what hints did not tell."""
_PATIENCE = 5.0
"""Seconds to wait for the submit lock."""
_STATUS = {
    lay.FRESH: Status.READY,
    lay.READY: Status.READY,
    lay.FRESH_LATER: Status.SCHEDULED,
    lay.LATER: Status.SCHEDULED,
    lay.CLAIMED: Status.CLAIMED,
    lay.DEAD: Status.DEAD,
    lay.DONE: Status.DONE,
}

_engines: weakref.WeakSet[SharedEngine] = weakref.WeakSet()


class SharedEngine:
    """
    One handle on a board.

    Times are the system's monotonic clock in microseconds, the same in all processes.
    """

    def __init__(self, name: str, memory: Memory, options: Options) -> None:
        self._name = name
        self._memory = memory
        self._options = StoredOptions(memory)
        self._cells = Cells(memory, name)
        self._labels = Labels(memory)
        self._news = News(memory, self._is_joined)
        self._journal = Journal(memory, self._news)
        self._endings = Endings(self._cells, self._labels, self._options, self._journal, self._now)
        self._holds = Holds(memory.file, lambda token: self._endings.held(token) is not None)
        self._submitter = Submitter(self._cells, name)
        self._finder = Finder(self._cells, self._lapsed, self._endings.forget, self._now())
        self._letters = Letters(self._cells, self._finder, self._submitter, self._journal)
        try:
            self._options.agree(options)
        except BaseException:
            memory.close()
            raise
        self._seated()
        _engines.add(self)

    @property
    def instant(self) -> bool:
        """Claims never wait."""
        return True

    def close(self) -> None:
        """Give up the mapping and the seat."""
        self._news.stop()
        self._memory.close()
        _engines.discard(self)

    def forked(self) -> None:
        """Give up what is the parent's."""
        self._news.stop()
        self._memory.forked()

    @property
    def memory(self) -> Memory:
        """The mapping."""
        return self._memory

    @property
    def signals(self) -> Observable[Signal]:
        """Hot: ready, or joined; polled."""
        return self._news.signals.observable

    @property
    def events(self) -> Observable[TaskEvent]:
        """Hot: what happens to tasks, in all processes; polled."""
        return self._news.events.observable

    # -- the steps -----------------------------------------------------------------------------

    async def submit(self, entries: Sequence[NewTask]) -> list[bool]:
        """Add tasks; False where the id is known."""
        now = self._begin()
        await self._lock()
        try:
            answers, told = self._submitter.add(entries, now)
        finally:
            self._memory.submit_unlock()
        self._finder.tell(told)
        if self._journal.heard:
            for entry, new in zip(entries, answers, strict=True):
                if new:
                    self._journal.note("submitted", id_bytes(entry.id))
        self._finish(ready=any(answers))
        return answers

    async def claim(
        self, limit: int, ids: Sequence[str] | None, worker: str, lease: float
    ) -> ClaimReply:
        """Sweep, then claim up to *limit* tasks."""
        _check_lease(lease)
        now = self._begin()
        self._sweep(now)
        finder, journal = self._finder, self._journal
        found: list[ClaimedTask] = []
        if limit and not self._memory.load(lay.PAUSED):
            deadline = now + round(lease * 1e6)
            taker = Taker(
                self._cells,
                self._labels,
                self._endings,
                limit=limit,
                now=now,
                deadline=deadline,
                worker=worker,
                holds=self._holds,
                max_crashes=self._options.max_crashes,
            )
            if ids is None:
                taker.take_best(finder)
            else:
                taker.take_ids(ids)
            found = taker.found
            if found:
                finder.at_latest(deadline)
            if journal.heard:
                label = worker.encode("utf-8", "replace")
                for item in found:
                    journal.note("claimed", id_bytes(item.id), label, item.token, item.attempts + 1)
        self._finish()
        due = finder.next_due()
        return ClaimReply(found, None if due is None else max(0.0, (due - now) / 1e6))

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        """Extend leases; False where the token no longer holds."""
        _check_lease(lease)
        now = self._begin()
        deadline = now + round(lease * 1e6)
        tick = -(-deadline // lay.TICK) & lay.LOWS
        answers: list[bool] = []
        for _, token in held:
            cell = token & lay.LOWS
            while (mark := self._endings.held(token)) is not None:
                if self._cells.swap(cell, mark, mark & ~lay.LOWS | tick):
                    break
            answers.append(mark is not None)
        self._finder.at_latest(deadline)
        return answers

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; False where the token no longer holds."""
        now = self._begin()
        answers: list[bool] = []
        told: list[int] = []
        fast = not self._options.remember and not self._journal.heard
        cas, marks, stash = self._memory.cas, self._memory.layout.marks, self._cells.stash
        top, numbers, lows = lay.CLAIMED << lay.STATE_SHIFT, lay.NUMBERS << lay.LOW_BITS, lay.LOWS
        freed: list[int] = []
        tick = 0
        for settlement in settlements:
            token = settlement.claim.token
            if not fast or token & BIG or settlement.kind != "done":
                answers.append(self._endings.settle(settlement, now, told))
                continue
            # FREE is 0, so that what is left of the mark is the word of a free cell.
            cell, free = token & lows, token >> 1 & numbers
            mark = top | free | tick
            was = cas(marks + (cell << 3), mark, free)
            # Most leases of a batch lapse at the same tick as the one before.
            while was != mark and was & ~lows == top | free:
                mark, tick = was, was & lows
                was = cas(marks + (cell << 3), mark, free)
            answers.append(was == mark)
            if was == mark:
                freed.append(cell)
        stash += freed
        if len(stash) > 4096:
            del stash[:-4096]
        self._finder.tell(told)
        self._journal.ended |= any(answers)
        self._finish(ready=bool(told))
        return answers

    async def cancel(self, ids: Sequence[str]) -> list[bool]:
        """Bury tasks as cancelled; False where there is nothing to cancel."""
        self._begin()
        answers: list[bool] = []
        for task_id in ids:
            raw, done = id_bytes(task_id), False
            while (found := self._cells.index.find(raw, self._cells)) is not None:
                cell, mark = found
                if mark >> lay.STATE_SHIFT in (lay.DEAD, lay.DONE):
                    break
                if self._endings.bury(cell, mark, b"cancelled"):
                    done = True
                    break
            answers.append(done)
        self._finish()
        return answers

    async def redrive(self, ids: Sequence[str] | None, until: str) -> tuple[int, str]:
        """Make dead tasks ready at the end of their priority."""
        now = self._begin()
        cells, letters = self._cells, self._letters
        wanted: list[tuple[int, int]] = []
        if ids is None:
            until = until or str(self._memory.load(lay.LAST_DEATH))
            wanted = [(c, mark) for at, c, mark in letters.all() if at <= int(until)][:CHUNK]
        else:
            for task_id in dict.fromkeys(ids):
                found = cells.index.find(id_bytes(task_id), cells)
                if found is not None and found[1] >> lay.STATE_SHIFT == lay.DEAD:
                    wanted.append(found)
        revived = [letters.revive(cell, mark, now) for cell, mark in wanted]
        told = [cell for cell in revived if cell is not None]
        self._finder.tell(told)
        self._finish(ready=bool(told))
        return len(told), until

    async def pause(self, paused: bool) -> None:
        """Hold back, or no longer hold back, all claims."""
        self._begin()
        self._memory.store(lay.PAUSED, int(paused))
        if not paused:
            self._memory.add(lay.RESUMES, 1)
            self._news.signals.emit("ready")

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        self._begin()
        load = self._memory.load
        accepted, discarded, amounts = 0, 0, list[int]()
        # Looked at again while tasks change places, but not for ever.
        for _ in range(100):
            moves = load(lay.MOVES)
            accepted = load(lay.ACCEPTED if load(lay.STAGING) else lay.STAGED_ACCEPTED)
            amounts = self._finder.census()
            discarded = load(lay.DISCARDED)
            intent = load(lay.INTENT)
            if intent and self._cells.mark(load(lay.INTENT_CELL)) == word(lay.DISCARD, intent):
                discarded = load(lay.INTENT_TOTAL)
            if moves == load(lay.MOVES) or self._news.events.active:
                break
            await asyncio.sleep(0)
        scheduled = amounts[lay.LATER] + amounts[lay.FRESH_LATER]
        ready = amounts[lay.READY] + amounts[lay.FRESH]
        claimed, dead = amounts[lay.CLAIMED], amounts[lay.DEAD]
        done = accepted - scheduled - ready - claimed - dead - discarded
        return Counts(scheduled, ready, claimed, max(0, done), dead)

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place; 0 where there is none."""
        now = self._begin()
        self._finder.listen()
        since = now
        for found in self._finder.oldest():
            if found is None:
                await asyncio.sleep(0)
                self._begin()
            elif (known := self._cells.read(*found)) is not None:
                since = min(since, known[0].due)
        return max(0.0, (now - since) / 1e6)

    async def get(self, task_id: str) -> StoredState | None:
        """What is known of one task."""
        now, cells = self._begin(), self._cells
        raw = id_bytes(task_id)
        while (found := cells.index.find(raw, cells)) is not None:
            cell, mark = found
            state = mark >> lay.STATE_SHIFT
            if state == lay.DONE:
                if lapses(mark, now // lay.TICK) <= 0:
                    return None
                return StoredState(Status.DONE, b"", 0, 0, None, "")
            head, inline = cells.head(cell)
            record = cells.body(head, inline)[1]
            error = unpack_cause(cells.texts(head)[1])[0]
            worker = self._labels.of(cell, mark).decode() if state == lay.CLAIMED else None
            if cells.mark(cell) == mark:
                return StoredState(
                    _STATUS[state],
                    record,
                    head.attempts,
                    head.crashes,
                    worker or None,
                    error,
                )
        return None

    async def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records of tasks that are kept."""
        found = [await self.get(task_id) for task_id in ids]
        return [None if known is None else known.record or None for known in found]

    async def dead(self, after: str) -> tuple[list[DeadRow], str]:
        """A page of dead tasks, oldest first."""
        self._begin()
        return self._letters.page(after)

    async def tick(self) -> Unfinished:
        """Sweep, and count what is unfinished."""
        now = self._begin()
        self._sweep(now)
        self._finish()
        amounts = self._finder.census()
        due = self._finder.next_due()
        scheduled = amounts[lay.LATER] + amounts[lay.FRESH_LATER]
        ready = amounts[lay.READY] + amounts[lay.FRESH]
        # What is on its way between two cells may have been counted in neither.
        claimed = amounts[lay.CLAIMED] + amounts[lay.MOVED] + amounts[lay.PENDING]
        return Unfinished(
            scheduled, ready, claimed, None if due is None else max(0.0, (due - now) / 1e6)
        )

    def skew(self, seconds: float) -> None:
        """Put the board's clock forward, in all processes; for tests."""
        self._memory.add(lay.SKEW, round(seconds * 1e6))

    # -- before and after ----------------------------------------------------------------------

    def _begin(self) -> int:
        memory = self._memory
        if memory.closed:
            raise ConfigError("board must be open", self._name)
        if memory.seat < 0:
            memory.sit()
            self._seated()
        self._journal.begin()
        return self._now()

    def _now(self) -> int:
        """Microseconds on the clock that all processes of a host share."""
        return time.monotonic_ns() // 1000 + self._memory.load(lay.SKEW)

    def _finish(self, *, ready: bool = False) -> None:
        if self._journal.buried:
            self._letters.enforce(self._options.dead_limit)
        self._journal.finish(ready=ready)

    def _seated(self) -> None:
        """Clean up after who had the seat before, if he did not."""
        memory = self._memory
        at = lay.SEATS_AT + memory.seat * 8
        if memory.load(at) & 1:
            self._cells.clean(memory.seat)
        memory.store(at, memory.load(at) | 1)
        self._labels.clear()

    async def _lock(self) -> None:
        memory = self._memory
        limit, wait = time.monotonic() + _PATIENCE, 0.0002
        while not memory.try_submit_lock():
            if time.monotonic() > limit:
                raise StoreUnavailableError("submit (another process holds the lock)")
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 0.01)
            self._begin()
        self._submitter.recover()

    def _is_joined(self) -> bool:
        amounts = self._finder.census()
        return not any(
            amounts[state]
            for state in (
                lay.FRESH,
                lay.FRESH_LATER,
                lay.READY,
                lay.LATER,
                lay.CLAIMED,
                lay.MOVED,
                lay.PENDING,
            )
        )

    # -- sweeping ------------------------------------------------------------------------------

    def _sweep(self, now: int) -> None:
        """Take back lapsed leases, bury the expired, make ready what is due."""
        finder, endings = self._finder, self._endings
        finder.listen()
        if now - finder.scanned >= _SCAN or self._memory.load(lay.EARLIEST) <= now:
            finder.scan(now)
            finder.listen()
        for cell, mark in finder.expired(now):
            endings.bury(cell, mark, b"expired")
        ready = [endings.ready(cell, mark) for cell, mark in finder.due(now)]
        finder.tell([cell for cell in ready if cell is not None])
        finder.listen()

    def _lapsed(self, cell: int, mark: int) -> None:
        again = self._endings.lapse(cell, mark)
        if again is not None:
            self._finder.tell([again])


def _check_lease(lease: float) -> None:
    if lease > lay.LEASE_LIMIT:
        raise ConfigError(f"lease must be at most {lay.LEASE_LIMIT:g} s in shared memory", lease)


def _after_fork() -> None:
    for engine in list(_engines):
        engine.forked()


os.register_at_fork(after_in_child=_after_fork)
