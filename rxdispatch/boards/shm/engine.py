"""``SharedEngine``: keeps the tasks of a board in shared memory."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from collections.abc import Sequence
from itertools import islice

from reactivex import Observable

from rxdispatch.boards.claiming.signal_inbox import SignalEngine
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
from rxdispatch.boards.shm.claiming import Claiming
from rxdispatch.boards.shm.dead_letters import DeadLetters
from rxdispatch.boards.shm.event_buffer import EventBuffer
from rxdispatch.boards.shm.holders import Holders
from rxdispatch.boards.shm.inspection import Inspection
from rxdispatch.boards.shm.local.census import Census
from rxdispatch.boards.shm.local.held_suspects import HeldSuspects
from rxdispatch.boards.shm.local.local_index import LocalIndex
from rxdispatch.boards.shm.local.ring_walk import RingWalk
from rxdispatch.boards.shm.notifier import Notifier
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.mapping import Mapping
from rxdispatch.boards.shm.storage.stored_options import StoredOptions
from rxdispatch.boards.shm.submission import Submission
from rxdispatch.boards.shm.transitions import BIG, Transitions
from rxdispatch.boards.task_codec import NewTask, id_bytes
from rxdispatch.claim import Settlement
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.results import Counts, KindState, TaskEvent

__all__ = ["SharedEngine"]

_SCAN = 1_500_000
"""Microseconds between two scans of all marks; a scan finds what no hint has announced."""
_PATIENCE = 5.0
"""Seconds that a submission waits for the lock."""

_engines: weakref.WeakSet[SharedEngine] = weakref.WeakSet()


class SharedEngine(SignalEngine):
    """
    The engine of one handle on a board in shared memory.

    It counts time in microseconds of the host's monotonic clock, which all processes share.
    """

    def __init__(self, name: str, mapping: Mapping, options: Options) -> None:
        self._name = name
        self._mapping = mapping
        self._options = StoredOptions(mapping)
        self._cells = Cells(mapping, name)
        self._holders = Holders(mapping)
        self._notifier = Notifier(mapping, self._is_joined)
        self.cancelled = self._notifier.cancelled
        self._event_buffer = EventBuffer(mapping, self._notifier)
        self._transitions = Transitions(
            self._cells, self._holders, self._options, self._event_buffer, self._now
        )
        self._held_suspects = HeldSuspects(
            mapping.file, lambda token: self._transitions.held(token) is not None
        )
        self._submission = Submission(self._cells, name)
        self._local_index = LocalIndex(
            self._cells, self._lapsed, self._transitions.forget, self._now()
        )
        self._census = Census(self._cells, self._local_index.note, self._begin)
        self._ring_walk = RingWalk(self._cells, self._local_index.announce)
        self._dead_letters = DeadLetters(
            self._cells, self._local_index, self._submission, self._event_buffer
        )
        self._inspection = Inspection(
            self._cells,
            self._local_index,
            self._census,
            self._holders,
            self._notifier,
            self._begin,
        )
        try:
            self._options.agree(options)
        except BaseException:
            mapping.close()
            raise
        self._seated()
        _engines.add(self)

    @property
    def instant(self) -> bool:
        """True: a claim never waits."""
        return True

    def close(self) -> None:
        """Close the mapping and free the seat."""
        self._notifier.stop()
        self._mapping.close()
        _engines.discard(self)

    def forked(self) -> None:
        """Let go of what belongs to the parent process; called in a forked child."""
        self._notifier.stop()
        self._mapping.forked()

    @property
    def mapping(self) -> Mapping:
        """The mapping of the board's file."""
        return self._mapping

    @property
    def signals(self) -> Observable[Signal]:
        """Hot: tasks may be ready, or none may be unfinished; polled."""
        return self._notifier.signals.observable

    @property
    def events(self) -> Observable[TaskEvent]:
        """Hot: what happens to tasks, in all processes; polled."""
        return self._notifier.events.observable

    # -- the steps -----------------------------------------------------------------------------

    async def submit(self, entries: Sequence[NewTask]) -> list[bool]:
        """Add tasks; returns False where the id is known."""
        now = self._begin()
        await self._lock()
        try:
            answers, hinted = self._submission.add(entries, now)
        finally:
            self._mapping.submit_unlock()
        self._local_index.announce(hinted)
        if self._event_buffer.heard:
            for entry, new in zip(entries, answers, strict=True):
                if new:
                    self._event_buffer.note("submitted", id_bytes(entry.id), record=entry.record)
        self._finish(ready=any(answers))
        return answers

    async def claim(
        self,
        limit: int,
        ids: Sequence[str] | None,
        kinds: Sequence[str] | None,
        worker: str,
        lease: float,
    ) -> ClaimReply:
        """Sweep, then claim up to *limit* tasks, the best first."""
        _check_lease(lease)
        now = self._begin()
        self._sweep(now)
        local_index, event_buffer = self._local_index, self._event_buffer
        found: list[ClaimedTask] = []
        paused = self._mapping.load(layout.PAUSED)
        if limit and not paused & layout.ALL_PAUSED:
            choice = None if kinds is None and not paused else self._cells.kinds.choice(kinds)
            deadline = now + round(lease * 1e6)
            claiming = Claiming(
                self._cells,
                self._holders,
                self._transitions,
                limit=limit,
                now=now,
                deadline=deadline,
                worker=worker,
                held_suspects=self._held_suspects,
                max_crashes=self._options.max_crashes,
            )
            if ids is None:
                claiming.take_best(local_index, self._ring_walk, choice)
            else:
                claiming.take_ids(ids, choice)
            found = claiming.found
            if found:
                local_index.at_latest(deadline)
            if event_buffer.heard:
                label = worker.encode("utf-8", "replace")
                for task in found:
                    facts = id_bytes(task.id), label, task.token, task.attempts + 1
                    event_buffer.note("claimed", *facts, record=task.record)
        self._finish()
        due = local_index.next_due()
        return ClaimReply(found, None if due is None else max(0.0, (due - now) / 1e6))

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        """Extend leases; returns False where the token no longer holds."""
        _check_lease(lease)
        now = self._begin()
        deadline = now + round(lease * 1e6)
        tick = -(-deadline // layout.TICK) & layout.LOWS
        answers: list[bool] = []
        for _, token in held:
            cell = token & layout.LOWS
            while (mark := self._transitions.held(token)) is not None:
                if self._cells.swap(cell, mark, mark & ~layout.LOWS | tick):
                    break
            answers.append(mark is not None)
        self._local_index.at_latest(deadline)
        return answers

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; returns False where the token no longer holds."""
        now = self._begin()
        answers: list[bool] = []
        hinted: list[int] = []
        fast = not self._options.remember and not self._event_buffer.heard
        cas, marks, stash = self._mapping.cas, self._mapping.geometry.marks, self._cells.stash
        top, numbers, lows = (
            layout.CLAIMED << layout.STATE_SHIFT,
            layout.NUMBERS << layout.LOW_BITS,
            layout.LOWS,
        )
        freed: list[int] = []
        tick = 0
        for settlement in settlements:
            token = settlement.claim.token
            if not fast or token & BIG or settlement.kind != "done":
                answers.append(self._transitions.settle(settlement, now, hinted))
                continue
            # FREE is 0, so the rest of the mark is the mark of a free cell.
            cell, free = token & lows, token >> 1 & numbers
            mark = top | free | tick
            was = cas(marks + (cell << 3), mark, free)
            # Most leases of a batch lapse at the same tick as the lease before.
            while was != mark and was & ~lows == top | free:
                mark, tick = was, was & lows
                was = cas(marks + (cell << 3), mark, free)
            answers.append(was == mark)
            if was == mark:
                freed.append(cell)
        stash += freed
        if len(stash) > 4096:
            del stash[:-4096]
        self._local_index.announce(hinted)
        self._event_buffer.ended |= any(answers)
        self._finish(ready=bool(hinted))
        return answers

    async def cancel(self, ids: Sequence[str]) -> list[bool]:
        """Make tasks dead as cancelled; returns False where there is nothing to cancel."""
        self._begin()
        ended = [self._transitions.cancel(id_bytes(task_id)) for task_id in ids]
        if layout.CLAIMED in ended:
            self._mapping.add(layout.CANCELS, 1)
        self._finish()
        return [state is not None for state in ended]

    async def redrive(self, ids: Sequence[str] | None, until: str) -> tuple[int, str]:
        """Make dead tasks ready; returns how many, and *until* for the next call."""
        now = self._begin()
        cells, letters = self._cells, self._dead_letters
        if ids is None:
            until = until or str(self._mapping.load(layout.LAST_DEATH))
            wanted = [(cell, mark) for at, cell, mark in letters.all() if at <= int(until)]
        else:
            known = [cells.find(id_bytes(task_id)) for task_id in dict.fromkeys(ids)]
            wanted = [f for f in known if f and f[1] >> layout.STATE_SHIFT == layout.DEAD]
        # Those that another process has redriven meanwhile do not count toward the chunk.
        revived = (letters.revive(cell, mark, now) for cell, mark in wanted)
        hinted = list(islice((cell for cell in revived if cell is not None), CHUNK))
        self._local_index.announce(hinted)
        self._finish(ready=bool(hinted))
        return len(hinted), until

    async def pause(self, paused: bool, kind: str | None) -> None:
        """Pause or resume all claims, or those of a kind."""
        self._begin()
        self._cells.kinds.pause(paused, kind)
        if not paused:
            self._mapping.add(layout.RESUMES, 1)
            self._notifier.signals.emit("ready")

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        self._begin()
        return await self._inspection.counts()

    async def kinds(self) -> dict[str, KindState]:
        """The kinds that have unfinished tasks."""
        return await self._inspection.kinds()

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place; 0 if there is none."""
        return await self._inspection.lag()

    async def get(self, task_id: str) -> StoredState | None:
        """The stored state of one task; None if its id is not known."""
        return self._inspection.state(task_id)

    async def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records of tasks in any state; None for an id without a task."""
        found = [self._inspection.state(task_id) for task_id in ids]
        return [None if known is None else known.record or None for known in found]

    async def dead(self, after: str) -> tuple[list[DeadRow], str]:
        """A page of dead tasks, oldest first, and *after* for the next page."""
        self._begin()
        return self._dead_letters.page(after)

    async def tick(self, kinds: Sequence[str] | None) -> Unfinished:
        """Sweep, and count what is unfinished, of *kinds* or of all."""
        now = self._begin()
        self._sweep(now)
        self._finish()
        return await self._inspection.unfinished(now, kinds)

    def skew(self, seconds: float) -> None:
        """Move the board's clock forward in all processes; for tests."""
        self._mapping.add(layout.SKEW, round(seconds * 1e6))

    # -- before and after ----------------------------------------------------------------------

    def _begin(self) -> int:
        mapping = self._mapping
        if mapping.closed:
            raise ConfigError("board must be open", self._name)
        if mapping.seat < 0:
            mapping.sit()
            self._seated()
        self._event_buffer.begin()
        return self._now()

    def _now(self) -> int:
        """Return the time in microseconds on the clock that all processes of the host share."""
        return time.monotonic_ns() // 1000 + self._mapping.load(layout.SKEW)

    def _finish(self, *, ready: bool = False) -> None:
        if self._event_buffer.buried:
            self._dead_letters.enforce(self._options.dead_limit)
        self._event_buffer.finish(ready=ready)

    def _seated(self) -> None:
        """Set up the seat, and clean up if its previous owner died."""
        mapping = self._mapping
        at = layout.SEATS_AT + mapping.seat * 8
        if mapping.load(at) & 1:
            self._cells.clean(mapping.seat)
        mapping.store(at, mapping.load(at) | 1)
        self._holders.clear()

    async def _lock(self) -> None:
        mapping = self._mapping
        limit, wait = time.monotonic() + _PATIENCE, 0.0002
        while not mapping.try_submit_lock():
            if time.monotonic() > limit:
                raise StoreUnavailableError("submit (another process holds the lock)")
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 0.01)
            self._begin()
        self._submission.recover()

    def _is_joined(self) -> bool:
        return self._census.is_joined()

    # -- sweeping ------------------------------------------------------------------------------

    def _sweep(self, now: int) -> None:
        """End lapsed leases, make expired tasks dead, and make due tasks ready."""
        local_index, transitions = self._local_index, self._transitions
        local_index.listen()
        if now - local_index.scanned >= _SCAN or self._mapping.load(layout.EARLIEST) <= now:
            local_index.scan(now)
            local_index.listen()
        for cell, mark in local_index.expired(now):
            transitions.bury(cell, mark, b"expired")
        ready = [transitions.ready(cell, mark) for cell, mark in local_index.due(now)]
        local_index.announce([cell for cell in ready if cell is not None])
        local_index.listen()

    def _lapsed(self, cell: int, mark: int) -> None:
        again = self._transitions.lapse(cell, mark)
        if again is not None:
            self._local_index.announce([again])


def _check_lease(lease: float) -> None:
    if lease > layout.LEASE_LIMIT:
        raise ConfigError(f"lease must be at most {layout.LEASE_LIMIT:g} s in shared memory", lease)


def _after_fork() -> None:
    for engine in list(_engines):
        engine.forked()


os.register_at_fork(after_in_child=_after_fork)
