"""``SharedEngine``: the atomic steps of a board as words of shared memory."""

from __future__ import annotations

import asyncio
import os
import time
import weakref
from bisect import bisect_right
from collections.abc import Sequence
from struct import Struct, pack

from reactivex import Observable

from rxdispatch.boards import shared_layout as lay
from rxdispatch.boards.codec import Entry, id_bytes, id_text
from rxdispatch.boards.engine import (
    CHUNK,
    Dead,
    Found,
    Haul,
    Known,
    Options,
    Signal,
    Tally,
)
from rxdispatch.boards.shared_cells import Cells
from rxdispatch.boards.shared_find import Finder, lapses
from rxdispatch.boards.shared_layout import Head, number_of, word
from rxdispatch.boards.shared_map import Memory
from rxdispatch.boards.shared_news import Happening, News
from rxdispatch.boards.shared_submit import Submitter
from rxdispatch.errors import ConfigError, StoreUnavailableError
from rxdispatch.task import Counts, EventKind, Settlement, Status, TaskEvent

__all__ = ["SharedEngine"]

_SCAN = 1_500_000
"""Microseconds after which all marks are looked at again, for what hints did not tell."""
_PATIENCE = 5.0
"""Seconds to wait for the submit lock."""
_LEASE_RULE = f"lease must be at most {lay.LEASE_LIMIT:g} s in shared memory"
_BIG = 1 << 26
_CELL = _BIG - 1
_STATUS = {
    lay.FRESH: Status.READY,
    lay.READY: Status.READY,
    lay.FRESH_LATER: Status.SCHEDULED,
    lay.LATER: Status.SCHEDULED,
    lay.CLAIMED: Status.CLAIMED,
    lay.DEAD: Status.DEAD,
    lay.DONE: Status.DONE,
}
_HALF = 1 << (lay.NUMBER_BITS - 1)
_DOUBLE = Struct("<d")
_RAW = Struct("<Q")

_engines: weakref.WeakSet[SharedEngine] = weakref.WeakSet()


class SharedEngine:
    """
    One handle on a board.

    A token is the number of the claim (from one counter of the board), a bit that says whether
    the task has tails, and its cell: so whoever has it finds the mark without looking for the
    id. Times are the system's monotonic clock in microseconds, the same in all processes.
    """

    def __init__(self, name: str, memory: Memory, options: Options) -> None:
        self._name = name
        self._memory = memory
        self._cells = Cells(memory, name)
        self._submitter = Submitter(self._cells, name)
        self._finder = Finder(self._cells, self._lapsed, self._forgotten, self._now())
        self._news = News(memory, self._is_joined)
        self._label_of: dict[str, int] = {}
        self._log: list[Happening] | None = None
        self._ended = self._buried = False
        self._oldest: list[tuple[int, int, int]] = []
        self._letters: list[tuple[int, int, int]] = []
        try:
            self.agree(options)
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

    # -- options -------------------------------------------------------------------------------

    def agree(self, options: Options) -> None:
        """
        Store the options that a handle gives.

        Raises:
            ConfigError: If another handle gave another value before.
        """
        if options.remember is not None and options.remember > lay.LEASE_LIMIT:
            raise ConfigError(
                f"remember must be at most {lay.LEASE_LIMIT:g} s in shared memory", options.remember
            )
        self._stored().merged(options)
        for at, value in (
            (lay.MAX_CRASHES, options.max_crashes),
            (lay.REMEMBER, options.remember),
            (lay.DEAD_LIMIT, options.dead_limit),
        ):
            if value is None:
                continue
            raw = 1 + (_RAW.unpack(_DOUBLE.pack(value))[0] if at == lay.REMEMBER else int(value))
            if self._memory.cas(at, 0, raw) not in (0, raw):
                self._stored().merged(options)

    def _stored(self) -> Options:
        load = self._memory.load
        crashes, remember, dead = load(lay.MAX_CRASHES), load(lay.REMEMBER), load(lay.DEAD_LIMIT)
        return Options(
            crashes - 1 if crashes else None,
            _DOUBLE.unpack(_RAW.pack(remember - 1))[0] if remember else None,
            dead - 1 if dead else None,
        )

    # -- the steps -----------------------------------------------------------------------------

    async def submit(self, entries: Sequence[Entry]) -> list[bool]:
        """Add tasks; False where the id is known."""
        now = self._begin()
        await self._lock()
        try:
            answers, told = self._submitter.add(entries, now)
        finally:
            self._memory.submit_unlock()
        self._finder.tell(told)
        if self._log is not None:
            for entry, new in zip(entries, answers, strict=True):
                if new:
                    self._log.append(Happening("submitted", id_bytes(entry.id)))
        self._finish(ready=any(answers))
        return answers

    async def claim(self, limit: int, ids: Sequence[str] | None, worker: str, lease: float) -> Haul:
        """Sweep, then claim up to *limit* tasks."""
        if lease > lay.LEASE_LIMIT:
            raise ConfigError(
                f"lease must be at most {lay.LEASE_LIMIT:g} s in shared memory", lease
            )
        now = self._begin()
        self._sweep(now)
        memory, finder = self._memory, self._finder
        found: list[Found] = []
        if limit and not memory.load(lay.PAUSED):
            deadline = now + round(lease * 1e6)
            taker = _Taker(self, now, deadline, worker, memory.add(lay.NUMBER, limit))
            if ids is None:
                self._take_best(taker, limit)
            else:
                for task_id in ids:
                    if len(taker.found) == limit:
                        break
                    self._take_one(taker, task_id)
            found = taker.found
            if found:
                finder.at_latest(deadline)
            if self._log is not None:
                label = worker.encode("utf-8", "replace")
                for item in found:
                    self._event("claimed", id_bytes(item.id), label, item.token, item.attempts + 1)
        self._finish()
        due = finder.next_due()
        return Haul(found, None if due is None else max(0.0, (due - now) / 1e6))

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        """Extend leases; False where the token no longer holds."""
        if lease > lay.LEASE_LIMIT:
            raise ConfigError(
                f"lease must be at most {lay.LEASE_LIMIT:g} s in shared memory", lease
            )
        now = self._begin()
        deadline = now + round(lease * 1e6)
        tick = -(-deadline // lay.TICK) & lay.LOWS
        answers: list[bool] = []
        for _, token in held:
            cell = token & lay.LOWS
            while (mark := self._held(token)) is not None:
                if self._cells.swap(cell, mark, mark & ~lay.LOWS | tick):
                    break
            answers.append(mark is not None)
        self._finder.at_latest(deadline)
        return answers

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; False where the token no longer holds."""
        now = self._begin()
        answers: list[bool] = []
        remember = self._memory.load(lay.REMEMBER) > 1
        told: list[int] = []
        fast = not remember and self._log is None
        words, cas = self._memory.words, self._memory.cas
        marks, stash = self._memory.layout.marks, self._cells.stash
        top, numbers, lows = lay.CLAIMED << lay.STATE_SHIFT, lay.NUMBERS << lay.LOW_BITS, lay.LOWS
        freed: list[int] = []
        for settlement in settlements:
            token = settlement.claim.token
            if not fast or token & _BIG or settlement.kind != "done":
                answers.append(self._end(settlement, now, told))
                continue
            cell, number = token & lows, token >> 1 & numbers
            at = marks + (cell << 3)
            # FREE is 0, so that what is left of the mark is the word of a free cell.
            mark = words[at >> 3]
            while mark & ~lows == top | number:
                was = cas(at, mark, number)
                if was == mark:
                    freed.append(cell)
                    answers.append(True)
                    break
                mark = was
            else:
                answers.append(False)
        stash += freed
        if len(stash) > 4096:
            del stash[:-4096]
        self._finder.tell(told)
        self._ended = self._ended or any(answers)
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
                if self._bury(cell, mark, b"cancelled"):
                    done = True
                    break
            answers.append(done)
        self._finish()
        return answers

    async def redrive(self, ids: Sequence[str] | None, until: str) -> tuple[int, str]:
        """Make dead tasks ready at the end of their priority."""
        self._begin()
        cells, told, count = self._cells, list[int](), 0
        wanted: list[tuple[int, int]] = []
        if ids is None:
            until = until or str(self._memory.load(lay.LAST_DEATH))
            letters = self._all_letters()
            wanted = [(cell, mark) for at, cell, mark in letters if at <= int(until)][:CHUNK]
        else:
            for task_id in dict.fromkeys(ids):
                found = cells.index.find(id_bytes(task_id), cells)
                if found is not None and found[1] >> lay.STATE_SHIFT == lay.DEAD:
                    wanted.append(found)
        for cell, mark in wanted:
            known = self._read(cell, mark)
            if known is None:
                continue
            head, inline = known
            fresh = head._replace(attempts=0, crashes=0, expires=0, death=0, due=0, flags=0)
            raw = cells.body(head, inline)[0]
            new = cells.move(cell, mark, fresh, inline, lay.READY, last=True)
            if new is not None:
                count += 1
                told.append(new)
                self._memory.add(lay.DEAD_GUESS, -1)
                self._event("redriven", raw)
        self._finder.tell(told)
        self._finish(ready=bool(told))
        return count, until

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
        while True:
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

    async def get(self, task_id: str) -> Known | None:
        """What is known of one task."""
        now, cells = self._begin(), self._cells
        raw = id_bytes(task_id)
        while (found := cells.index.find(raw, cells)) is not None:
            cell, mark = found
            state = mark >> lay.STATE_SHIFT
            if state == lay.DONE:
                if lapses(mark, now // lay.TICK) <= 0:
                    return None
                return Known(Status.DONE, b"", 0, 0, None, "")
            head, inline = cells.head(cell)
            record = cells.body(head, inline)[1]
            error = cells.texts(head)[1]
            worker = self._worker(cell, mark).decode() if state == lay.CLAIMED else None
            if cells.mark(cell) == mark:
                return Known(
                    _STATUS[state],
                    record,
                    head.attempts,
                    head.crashes,
                    worker or None,
                    error.decode("utf-8", "replace"),
                )
        return None

    async def dead(self, after: str) -> tuple[list[Dead], str]:
        """A page of dead tasks, oldest first."""
        self._begin()
        cells, start, page = self._cells, int(after or 0), list[Dead]()
        for fresh in (False, True):
            if fresh or not after:
                self._letters = self._all_letters()
            letters = self._letters
            for at, cell, mark in letters[bisect_right(letters, (start, 1 << 62, 0)) :]:
                known = self._read(cell, mark)
                if known is None:
                    continue
                head, inline = known
                reason, error = cells.texts(head)
                raw, record = cells.body(head, inline)
                if cells.mark(cell) != mark:
                    continue
                page.append(
                    Dead(
                        id_text(raw),
                        record,
                        reason.decode("utf-8", "replace"),
                        error.decode("utf-8", "replace"),
                        head.attempts,
                        head.crashes,
                        at / 1e6,
                    )
                )
                after = str(at)
                if len(page) == CHUNK:
                    return page, after
            if page:
                break
        return page, after

    async def tick(self) -> Tally:
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
        return Tally(
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
        self._log = [] if self._news.heard else None
        self._ended = self._buried = False
        return self._now()

    def _now(self) -> int:
        """Microseconds on the clock that all processes of a host share."""
        return time.monotonic_ns() // 1000 + self._memory.load(lay.SKEW)

    def _finish(self, *, ready: bool = False) -> None:
        if self._buried:
            self._enforce()
        if self._log:
            self._news.publish(self._log)
        if self._ended:
            self._memory.add(lay.ENDS, 1)
        if ready:
            self._news.signals.emit("ready")

    def _seated(self) -> None:
        """Clean up after who had the seat before, if he did not."""
        memory = self._memory
        at = lay.SEATS_AT + memory.seat * 8
        if memory.load(at) & 1:
            self._cells.clean(memory.seat)
        memory.store(at, memory.load(at) | 1)
        self._label_of.clear()

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

    def _event(
        self,
        kind: EventKind,
        raw: bytes,
        worker: bytes = b"",
        token: int = 0,
        attempt: int = 0,
        reason: bytes = b"",
    ) -> None:
        if self._log is not None:
            self._log.append(Happening(kind, raw, worker, token, attempt, reason))

    # -- claiming ------------------------------------------------------------------------------

    def _take_best(self, taker: _Taker, limit: int) -> None:
        """Take from the ring and from what stands outside it, best first."""
        memory, layout, finder = self._memory, self._memory.layout, self._finder
        found = taker.found
        base, slots = layout.ring >> 3, layout.ring_slots
        while len(found) < limit:
            head, tail = memory.load(lay.RING_HEAD), memory.load(lay.RING_TAIL)
            top = finder.first()
            if top is not None and (head >= tail or top[:3] < (0, head, 0)):
                finder.drop()
                taker.take(top[3], top[4])
                continue
            if head >= tail:
                return
            count = min(limit - len(found), tail - head)
            if top is not None and top[0] == 0:
                count = min(count, top[1] + 1 - head)
            at = head % slots
            some = memory.words[base + at : base + min(at + count, slots)].tolist()
            # Read before they are taken: a place may be written anew once the head has passed.
            if memory.cas(lay.RING_HEAD, head, head + len(some)) == head:
                taker.take_run(head, some)

    def _take_one(self, taker: _Taker, task_id: str) -> None:
        cells, raw = self._cells, id_bytes(task_id)
        while (known := cells.index.find(raw, cells)) is not None:
            if known[1] >> lay.STATE_SHIFT not in (lay.FRESH, lay.READY) or taker.take(*known):
                return

    def label(self, worker: str) -> int:
        """Return the number under which a worker's label is stored."""
        known = self._label_of.get(worker)
        if known is None:
            memory = self._memory
            at = lay.SEATS_AT + memory.seat * 8
            turn = memory.load(at) >> 1
            memory.store(at, (turn + 1) << 1 | 1)
            known = memory.seat * lay.LABELS + turn % lay.LABELS
            raw = worker.encode("utf-8", "replace")
            memory.put(
                memory.layout.labels + known * lay.LABEL, len(raw).to_bytes(2, "little") + raw
            )
            self._label_of = {w: n for w, n in self._label_of.items() if n != known}
            self._label_of[worker] = known
        return known

    def _worker(self, cell: int, mark: int) -> bytes:
        """Return who holds a claim; nothing if that is not known any more."""
        memory, layout = self._memory, self._memory.layout
        holder = memory.load(layout.holders + cell * 8)
        if holder >> 16 & lay.NUMBERS != number_of(mark):
            return b""
        at = layout.labels + (holder & 0xFFFF) * lay.LABEL
        size = int.from_bytes(memory.map[at : at + 2], "little")
        return memory.map[at + 2 : at + 2 + size]

    def read_body(self, cell: int) -> tuple[bytes, bytes]:
        """Return id and record of a cell; look at the mark again afterwards."""
        return self._cells.body(*self._cells.head(cell))

    def expire_claimed(self, cell: int, mark: int) -> None:
        """Bury what was claimed too late, as if it had not been."""
        self._bury(cell, mark, b"expired", unclaimed=True)

    # -- holding and ending --------------------------------------------------------------------

    def _held(self, token: int) -> int | None:
        mark = self._cells.mark(token & lay.LOWS)
        if mark >> lay.LOW_BITS == lay.CLAIMED << lay.NUMBER_BITS | token >> 27 & lay.NUMBERS:
            return mark
        return None

    def _end(self, ending: Settlement, now: int, told: list[int]) -> bool:
        """End one claim."""
        token = ending.claim.token
        cell = token & lay.LOWS
        while (mark := self._held(token)) is not None:
            known = self._read(cell, mark)
            if known is not None and self._end_as(ending, cell, mark, *known, now, told):
                return True
        return False

    def _end_as(
        self,
        ending: Settlement,
        cell: int,
        mark: int,
        head: Head,
        inline: bytes,
        now: int,
        told: list[int],
    ) -> bool:
        """End one claim if its mark is still *mark*."""
        cells, verdict = self._cells, ending.verdict
        expired = 0 < head.expires <= now
        number = number_of(mark)
        due = now + round(ending.delay * 1e6)
        kind: EventKind
        # Read before the mark changes: afterwards it is no longer ours to read.
        raw = cells.body(head, inline)[0] if self._log is not None else b""
        worker = self._worker(cell, mark) if self._log is not None else b""
        error = ending.error.encode("utf-8", "replace")
        if verdict == "done":
            kind = "done"
            if not self._finish_done(cell, mark, now):
                return False
        elif verdict == "released" and not expired:
            kind = "released"
            if ending.delay:
                later = head._replace(due=due, flags=0)
                new = cells.move(cell, mark, later, inline, lay.LATER, text=cells.texts(head))
                if new is None:
                    return False
                told.append(new)
            else:
                if not cells.swap(cell, mark, word(lay.READY, number)):
                    return False
                told.append(cell)
        elif verdict == "retry" and not expired:
            kind = "retried"
            again = head._replace(attempts=head.attempts + 1, due=0, flags=0)
            final = lay.READY
            if ending.delay:
                again, final = again._replace(due=due, flags=lay.TO_END), lay.LATER
            new = cells.move(cell, mark, again, inline, final, text=(b"", error), last=True)
            if new is None:
                return False
            told.append(new)
        else:
            released = verdict == "released"
            return self._bury(
                cell,
                mark,
                ending.reason.encode("utf-8", "replace") if verdict == "dead" else b"expired",
                error=None if released else error,
                attempts=0 if released else 1,
            )
        self._event(kind, raw, worker, ending.claim.token, head.attempts + 1)
        return True

    def _finish_done(self, cell: int, mark: int, now: int) -> bool:
        stored = self._memory.load(lay.REMEMBER)
        remember = _DOUBLE.unpack(_RAW.pack(stored - 1))[0] if stored else 0.0
        if not remember:
            return self._cells.end(cell, mark)
        until = -(-(now + round(remember * 1e6)) // lay.TICK) & lay.LOWS
        return self._cells.swap(cell, mark, word(lay.DONE, number_of(mark), until))

    def _read(self, cell: int, mark: int) -> tuple[Head, bytes] | None:
        known = self._cells.head(cell)
        return known if self._cells.mark(cell) == mark else None

    def _bury(
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
        cells, memory = self._cells, self._memory
        known = self._read(cell, mark)
        if known is None:
            return False
        head, inline = known
        raw = cells.body(head, inline)[0]
        text = (reason, cells.texts(head)[1] if error is None else error)
        worker, token, attempt = b"", 0, 0
        if mark >> lay.STATE_SHIFT == lay.CLAIMED and not unclaimed:
            worker, token, attempt = self._worker(cell, mark), self._token(cell, mark), 1
            attempt += head.attempts
        dead = head._replace(
            attempts=head.attempts + attempts,
            crashes=head.crashes + crashes,
            expires=0,
            death=self._time_of_death(),
        )
        if cells.move(cell, mark, dead, inline, lay.DEAD, text=text) is None:
            return False
        memory.add(lay.DEAD_GUESS, 1)
        self._ended = self._buried = True
        if crashes:
            self._event("crashed", raw, worker, token, attempt)
        self._event("dead", raw, worker, token, attempt, reason)
        return True

    def _token(self, cell: int, mark: int) -> int:
        """Return the token of a claim; the counter tells what the mark has no room for."""
        now, number = self._memory.load(lay.NUMBER), number_of(mark)
        whole = now - ((now - number) & lay.NUMBERS)
        start = self._memory.layout.data + cell * lay.CELL
        tails = lay.TASK.unpack_from(self._memory.map, start)[5:7]
        big = tails != (lay.NONE, lay.NONE)
        return whole << 27 | (_BIG if big else 0) | cell

    def _time_of_death(self) -> int:
        memory = self._memory
        while True:
            last = memory.load(lay.LAST_DEATH)
            at = max(time.time_ns() // 1000, last + 1)
            if memory.cas(lay.LAST_DEATH, last, at) == last:
                return at

    # -- sweeping ------------------------------------------------------------------------------

    def _sweep(self, now: int) -> None:
        """Take back lapsed leases, bury the expired, make ready what is due."""
        finder, cells, memory = self._finder, self._cells, self._memory
        finder.listen()
        if now - finder.scanned >= _SCAN or memory.load(lay.EARLIEST) <= now:
            finder.scan(now)
            finder.listen()
        for cell, mark in finder.expired(now):
            self._bury(cell, mark, b"expired")
        told: list[int] = []
        for cell, mark in finder.due(now):
            known = self._read(cell, mark)
            if known is None:
                continue
            head, inline = known
            if not head.flags & lay.TO_END:
                if cells.swap(cell, mark, word(lay.READY, number_of(mark))):
                    told.append(cell)
                continue
            again = head._replace(due=0, flags=0)
            text = cells.texts(head)
            new = cells.move(cell, mark, again, inline, lay.READY, text=text, last=True)
            if new is not None:
                told.append(new)
        if told:
            finder.tell(told)
        finder.listen()

    def _lapsed(self, cell: int, mark: int) -> None:
        """Take back a claim whose lease has lapsed."""
        known = self._read(cell, mark)
        if known is None:
            return
        head, inline = known
        now = self._now()
        limit = self._stored().filled()[0]
        if head.crashes + 1 > limit or 0 < head.expires <= now:
            reason = b"crashed" if head.crashes + 1 > limit else b"expired"
            self._bury(cell, mark, reason, crashes=1)
            return
        cells = self._cells
        raw = cells.body(head, inline)[0]
        worker, token = self._worker(cell, mark), self._token(cell, mark)
        again = head._replace(crashes=head.crashes + 1)
        new = cells.move(cell, mark, again, inline, lay.READY, text=cells.texts(head))
        if new is not None:
            self._finder.tell([new])
            self._event("crashed", raw, worker, token, head.attempts + 1)

    def _forgotten(self, cell: int, mark: int) -> None:
        self._cells.end(cell, mark)

    # -- the dead ------------------------------------------------------------------------------

    def _all_letters(self) -> list[tuple[int, int, int]]:
        """Return time, cell and mark of all that are dead, oldest first."""
        memory, layout = self._memory, self._memory.layout
        base = layout.marks >> 3
        found: list[tuple[int, int, int]] = []
        marks = memory.words[base : base + memory.load(lay.HIGH)].tolist()
        for cell, mark in enumerate(marks):
            if mark >> lay.STATE_SHIFT in (lay.MOVED, lay.PENDING):
                self._finder.note(cell)
        marks = memory.words[base : base + memory.load(lay.HIGH)].tolist()
        for cell, mark in enumerate(marks):
            if mark >> lay.STATE_SHIFT == lay.DEAD:
                head, _ = self._cells.head(cell)
                if self._cells.mark(cell) == mark:
                    found.append((head.death, cell, mark))
        found.sort()
        return found

    def _enforce(self) -> None:
        """Discard the oldest where more are dead than are kept, unless a submitter is at work."""
        memory, limit = self._memory, self._stored().filled()[2]
        if memory.load(lay.DEAD_GUESS) <= limit or not memory.try_submit_lock():
            return
        try:
            self._submitter.recover()
            fresh = False
            while memory.load(lay.DEAD_GUESS) > limit:
                if not self._oldest:
                    if fresh:
                        return
                    letters = self._all_letters()
                    fresh = True
                    memory.store(lay.DEAD_GUESS, len(letters))
                    self._oldest = letters[::-1]
                    continue
                _, cell, mark = self._oldest.pop()
                known = self._read(cell, mark)
                if known is None:
                    continue
                raw = self._cells.body(*known)[0]
                if self._submitter.discard(cell, mark):
                    memory.add(lay.DEAD_GUESS, -1)
                    self._event("discarded", raw)
        finally:
            memory.submit_unlock()


class _Taker:
    """One claim: changes marks, and reads what they have given."""

    def __init__(
        self, engine: SharedEngine, now: int, deadline: int, worker: str, number: int
    ) -> None:
        self.found: list[Found] = []
        self._engine = engine
        self._memory = engine.memory
        self._now = now
        self._number = number
        # Rounded up: a lease lapses late rather than early.
        self._tick = -(-deadline // lay.TICK) & lay.LOWS
        self._label = engine.label(worker)

    def take(self, cell: int, mark: int) -> bool:
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

    def take_run(self, place: int, run: Sequence[int]) -> None:
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
                self.take(cell, mark)
            return
        if run.__class__ is not range and run[-1] - cell == count - 1:
            straight = range(cell, cell + count)
            run = straight if list(straight) == run else run
        if run.__class__ is not range:
            self.take_run(place, run[: count // 2])
            self.take_run(place + count // 2, run[count // 2 :])
            return
        marks = marks_of(self._memory, run)
        mark, low = marks[0], place & lay.PLACES
        if low + count <= lay.PLACES and list(range(mark, mark + count)) == marks:
            if mark >> 60 == lay.FRESH and mark & lay.LOWS == lay.IN_RING | low:
                self._take_all(run, marks)
        else:
            self.take_run(place, run[: count // 2])
            self.take_run(place + count // 2, run[count // 2 :])

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
        for i in set(range(count)).difference(missed):
            self._keep(cells[i : i + 1], claimed[i : i + 1], number + i)

    def _keep(self, cells: Sequence[int], claimed: list[int], first: int) -> None:
        """Read tasks of neighbouring cells that are ours, of numbers from *first* on."""
        memory, found = self._memory, self.found
        none, now, before = lay.NONE, self._now, len(self.found)
        self._sign(cells, first)
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
                    token |= _BIG
            else:
                raw, record = self._engine.read_body(cell)
                token |= _BIG
            found.append(
                Found(str(raw, "utf-8", "surrogateescape"), token, record, attempts, crashes)
            )
        marks = marks_of(memory, cells)
        if marks != claimed:
            held = {c for c, old, new in zip(cells, claimed, marks, strict=True) if old == new}
            found[before:] = [item for item in found[before:] if item.token & _CELL in held]
        for cell, mark in late:
            self._engine.expire_claimed(cell, mark)

    def _sign(self, cells: Sequence[int], first: int) -> None:
        """Write beside the marks of neighbouring cells who it was."""
        memory, count = self._memory, len(cells)
        at = memory.layout.holders + (cells[0] << 3)
        sign = (first & lay.NUMBERS) << 16 | self._label
        if count == 1:
            memory.store(at, sign)
        else:
            memory.put(at, pack(f"<{count}q", *range(sign, sign + (count << 16), 1 << 16)))


def marks_of(memory: Memory, cells: Sequence[int]) -> list[int]:
    """Return the marks of neighbouring cells."""
    at = (memory.layout.marks >> 3) + cells[0]
    return memory.words[at : at + len(cells)].tolist()


def _after_fork() -> None:
    for engine in list(_engines):
        engine.forked()


os.register_at_fork(after_in_child=_after_fork)
