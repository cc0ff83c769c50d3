"""``MemoryEngine``: the atomic steps of a board in dictionaries of this process."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush
from itertools import chain, islice

from reactivex import Observable

from rxdispatch.boards.codec import Entry, delay_of
from rxdispatch.boards.engine import (
    CHUNK,
    DEFAULTS,
    Dead,
    Found,
    Haul,
    Known,
    Options,
    Signal,
    Tally,
)
from rxdispatch.boards.memory.enqueue_times import Pace
from rxdispatch.boards.memory.rows import (
    CLAIMED,
    DEAD,
    GONE,
    READY,
    SCHEDULED,
    STATUS,
    History,
    Lease,
    Ready,
    Row,
)
from rxdispatch.boards.suspects import ROOM, weight
from rxdispatch.claim import Settlement
from rxdispatch.relay import Relay
from rxdispatch.results import Counts, EventKind, TaskEvent
from rxdispatch.task import Status

__all__ = ["MemoryEngine"]

_FIRST = 8
"""Of each priority, the rows that may be the oldest; the others came later."""


class MemoryEngine:
    """
    Keeps tasks in dictionaries and queues; one event loop, nothing shared.

    Times are the running loop's, so that a virtual-time loop drives leases and delays too.
    """

    def __init__(self) -> None:
        self._options = Options()
        self._max_crashes, self._remember, self._dead_limit = DEFAULTS
        self._rows: dict[str, Row] = {}
        self._ready = Ready()
        self._suspects = Ready()
        self._held_weight: dict[str, int] = {}  # of suspects, by the label of their worker
        self._claimed: dict[str, Row] = {}
        self._lapse = math.inf  # no lease lapses before this
        self._dead: dict[str, Row] = {}
        self._past: dict[str, float] = {}
        self._later: list[tuple[float, int, Row]] = []
        self._limits: list[tuple[float, int, str]] = []
        self._amount = [0, 0, 0, 0]  # by mark
        self._done = 0
        self._paused = False
        self._number = 0
        self._pace = Pace()
        self._tie = 0
        self._token = time.time_ns() // 1000
        self._signals: Relay[Signal] = Relay("signals")
        self._events: Relay[TaskEvent] = Relay("events")

    @property
    def instant(self) -> bool:
        """Claims do not wait here, but may where this engine is extended."""
        return False

    @property
    def signals(self) -> Observable[Signal]:
        """Hot: ready, or joined."""
        return self._signals.observable

    @property
    def events(self) -> Observable[TaskEvent]:
        """Hot: what happens to tasks."""
        return self._events.observable

    @property
    def unused(self) -> bool:
        """Whether a new engine could stand in for it, but for the number of done tasks."""
        kept = self._rows or self._past or self._paused or self._options != Options()
        return not kept and not self._signals.active and not self._events.active

    def agree(self, options: Options) -> None:
        """
        Keep the options that a handle gives.

        Raises:
            ConfigError: If another handle gave another value before.
        """
        self._options = self._options.merged(options)
        self._max_crashes, self._remember, self._dead_limit = self._options.filled()

    # -- the steps ---------------------------------------------------------------------------

    async def submit(self, entries: Sequence[Entry]) -> list[bool]:
        """Add tasks; False where the id is known."""
        now, before = _now(), self._amount[READY]
        earliest = self._next_due()
        answers: list[bool] = []
        rows, past = self._rows, self._past
        for entry in entries:
            known = entry.id in rows or (bool(past) and past.get(entry.id, 0.0) > now)
            answers.append(not known)
            if known:
                continue
            row = Row(entry.id, entry.record, self._next(), entry.priority, READY)
            rows[entry.id] = row
            if entry.ttl:
                row.history = History(expires=now + entry.ttl)
                heappush(self._limits, (now + entry.ttl, row.place, row.id))
                self._prune_limits()
            if entry.delay:
                self._schedule(row, now + entry.delay)
            else:
                self._enqueue(row)
            self._event("submitted", row)
        due = self._next_due()
        self._hint(before, due is not None and (earliest is None or due < earliest))
        return answers

    async def claim(self, limit: int, ids: Sequence[str] | None, worker: str, lease: float) -> Haul:
        """Sweep, then claim up to *limit* tasks."""
        now, before = _now(), self._amount[READY]
        ended = self._sweep(now)
        found: list[Found] = []
        if not self._paused:
            source = self._best(worker) if ids is None else self._only(ids)
            deadline = now + lease
            while len(found) < limit and (row := next(source, None)) is not None:
                found.append(self._take(row, worker, deadline))
        self._hint(before)
        self._joined(ended)
        due = self._next_due()
        return Haul(found, None if due is None else max(0.0, due - now))

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        """Extend leases; False where the token no longer holds."""
        deadline = _now() + lease
        answers: list[bool] = []
        for task_id, token in held:
            row = self._held(task_id, token)
            answers.append(row is not None)
            if row is not None and row.lease is not None:
                row.lease.deadline = deadline
                self._lapse = min(self._lapse, deadline)
        return answers

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; False where the token no longer holds."""
        now, before = _now(), self._amount[READY]
        earliest = self._next_due()
        answers = [self._end(settlement, now) for settlement in settlements]
        due = self._next_due()
        self._hint(before, due is not None and (earliest is None or due < earliest))
        self._joined(any(answers))
        return answers

    async def cancel(self, ids: Sequence[str]) -> list[bool]:
        """Bury tasks as cancelled; False where there is nothing to cancel."""
        answers: list[bool] = []
        for task_id in ids:
            row = self._rows.get(task_id)
            answers.append(row is not None and row.mark != DEAD)
            if row is not None and row.mark != DEAD:
                self._bury(row, "cancelled")
        self._joined(any(answers))
        return answers

    async def redrive(self, ids: Sequence[str] | None, until: str) -> tuple[int, str]:
        """Make dead tasks ready at the end of their priority."""
        before = self._amount[READY]
        wanted = list(islice(self._dead, CHUNK)) if ids is None else list(dict.fromkeys(ids))
        rows = [row for task_id in wanted if (row := self._dead.get(task_id)) is not None]
        for row in rows:
            del self._dead[row.id]
            row.history = None
            fresh = self._anew(row, self._next())
            self._enqueue(fresh)
            self._event("redriven", fresh)
        self._hint(before)
        return len(rows), until

    async def pause(self, paused: bool) -> None:
        """Hold back, or no longer hold back, all claims."""
        self._paused = paused
        if not paused:
            self._signals.emit("ready")

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        ready, scheduled, claimed, dead = self._amount
        return Counts(scheduled, ready, claimed, self._done, dead)

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place; 0 where there is none."""
        now = _now()
        first = chain(self._ready.first(_FIRST), self._suspects.first(_FIRST))
        return max((now - self._since(row) for row in first), default=0.0)

    def _since(self, row: Row) -> float:
        """When *row* took its place: when it was submitted, was due, or came back as a retry."""
        given = self._pace.given(row.place)
        failed = row.history is not None and row.history.attempts > 0
        # What was delayed stands where it was submitted.
        return given if failed else min(_now(), given + delay_of(row.record))

    async def get(self, task_id: str) -> Known | None:
        """What is known of one task."""
        row = self._rows.get(task_id)
        if row is None:
            if self._past.get(task_id, 0.0) > _now():
                return Known(Status.DONE, b"", 0, 0, None, "")
            return None
        past = row.history or History()
        worker = None if row.lease is None else row.lease.worker
        return Known(STATUS[row.mark], row.record, past.attempts, past.crashes, worker, past.error)

    async def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records of tasks that are kept."""
        rows = [self._rows.get(task_id) for task_id in ids]
        return [None if row is None else row.record for row in rows]

    async def dead(self, after: str) -> tuple[list[Dead], str]:
        """A page of dead tasks, oldest first."""
        start = float(after or "-inf")
        page: list[Dead] = []
        for row in self._dead.values():
            past = row.history or History()
            if past.at > start:
                page.append(
                    Dead(
                        row.id,
                        row.record,
                        past.reason,
                        past.error,
                        past.attempts,
                        past.crashes,
                        past.at,
                        past.traceback,
                    )
                )
                if len(page) == CHUNK:
                    break
        return page, repr(page[-1].at) if page else after

    async def tick(self) -> Tally:
        """Sweep, and count what is unfinished."""
        now, before = _now(), self._amount[READY]
        ended = self._sweep(now)
        self._hint(before)
        self._joined(ended)
        ready, scheduled, claimed, _ = self._amount
        due = self._next_due()
        return Tally(scheduled, ready, claimed, None if due is None else max(0.0, due - now))

    # -- moving one task ---------------------------------------------------------------------

    def _next(self) -> int:
        self._number += 1
        self._pace.note(self._number)
        return self._number

    def _set(self, row: Row, mark: int) -> None:
        self._amount[row.mark] -= 1
        self._amount[mark] += 1
        row.mark = mark

    def _anew(self, row: Row, place: int) -> Row:
        """Replace *row* by one at *place*; queues skip the old one when they meet it."""
        self._amount[row.mark] -= 1
        row.mark = GONE
        self._drop_lease(row)
        fresh = Row(row.id, row.record, place, row.priority, READY, False, row.history)
        self._rows[row.id] = fresh
        return fresh

    def _line(self, row: Row) -> Ready:
        """Where *row* stands while it is ready."""
        past = row.history
        return self._ready if past is None or past.crashes == 0 else self._suspects

    def _enqueue(self, row: Row) -> None:
        """Make ready a new row, which has the last place."""
        self._amount[READY] += 1
        self._line(row).append(row)

    def _put_back(self, row: Row) -> None:
        """Make *row* ready at the place it had."""
        self._set(row, READY)
        self._drop_lease(row)
        self._line(row).put_back(row)

    def _suspect(self, row: Row) -> None:
        """Make *row*, whose worker died for the first time, ready at its place, as a suspect."""
        # A queue of the plain line may still refer to the row it was.
        fresh = self._anew(row, row.place)
        self._amount[READY] += 1
        self._suspects.put_back(fresh)

    def _drop_lease(self, row: Row) -> None:
        lease, row.lease = row.lease, None
        if lease is not None and lease.weight:
            left = self._held_weight[lease.worker] - lease.weight
            if left:
                self._held_weight[lease.worker] = left
            else:
                del self._held_weight[lease.worker]
        self._claimed.pop(row.id, None)

    def _schedule(self, row: Row, due: float) -> None:
        row.mark = SCHEDULED
        self._amount[SCHEDULED] += 1
        self._tie += 1
        heappush(self._later, (due, self._tie, row))
        if len(self._later) > 2 * self._amount[SCHEDULED] + CHUNK:
            # Most of them were cancelled, which leaves them here until they would be due.
            self._later = [entry for entry in self._later if entry[2].mark == SCHEDULED]
            heapify(self._later)

    def _take(self, row: Row, worker: str, deadline: float) -> Found:
        self._token += 1
        self._set(row, CLAIMED)
        row.lease = Lease(self._token, deadline, worker)
        self._claimed[row.id] = row
        self._lapse = min(self._lapse, deadline)
        past = row.history
        if past is not None and past.crashes:
            row.lease.weight = weight(past.crashes, self._max_crashes)
            self._held_weight[worker] = self._held_weight.get(worker, 0) + row.lease.weight
        self._event("claimed", row)
        return Found(
            row.id,
            self._token,
            row.record,
            0 if past is None else past.attempts,
            0 if past is None else past.crashes,
        )

    def _held(self, task_id: str, token: int) -> Row | None:
        row = self._rows.get(task_id)
        if row is None or row.lease is None or row.lease.token != token:
            return None
        return row

    def _end(self, ending: Settlement, now: float) -> bool:
        row = self._held(ending.claim.task.id, ending.claim.token)
        if row is None:
            return False
        past = row.history
        expired = past is not None and 0.0 < past.expires <= now
        if ending.verdict == "done":
            self._event("done", row)
            self._forget(row)
            self._done += 1
            if self._remember:
                self._past.pop(row.id, None)
                self._past[row.id] = now + self._remember
        elif ending.verdict == "released" and not expired:
            self._event("released", row)
            if ending.delay:
                self._amount[row.mark] -= 1
                self._drop_lease(row)
                self._schedule(row, now + ending.delay)
            else:
                self._put_back(row)
        elif ending.verdict == "retry" and not expired:
            past = row.history = past or History()
            past.error = ending.error
            self._event("retried", row)
            past.attempts += 1
            row = self._anew(row, self._next())
            if ending.delay:
                # Its place is taken when the wait is over: a retry joins the end.
                row.place = 0
                self._schedule(row, now + ending.delay)
            else:
                self._enqueue(row)
        else:
            past = row.history = past or History()
            if ending.verdict != "released":
                past.error, past.traceback = ending.error, ending.traceback
            self._bury(row, ending.reason if ending.verdict == "dead" else "expired")
            if ending.verdict != "released":
                past.attempts += 1
        return True

    def _forget(self, row: Row) -> None:
        self._amount[row.mark] -= 1
        row.mark = GONE
        self._drop_lease(row)
        del self._rows[row.id]

    def _bury(self, row: Row, reason: str) -> None:
        past = row.history = row.history or History()
        past.reason = reason
        past.expires = 0.0
        past.at = max(time.time(), self._last_death() + 1e-6)
        self._event("dead", row, reason)
        self._set(row, DEAD)
        self._drop_lease(row)
        self._dead[row.id] = row
        while len(self._dead) > self._dead_limit:
            oldest = self._dead.pop(next(iter(self._dead)))
            self._event("discarded", oldest)
            self._forget(oldest)

    def _last_death(self) -> float:
        if not self._dead:
            return 0.0
        last = self._dead[next(reversed(self._dead))].history
        return 0.0 if last is None else last.at

    # -- finding -----------------------------------------------------------------------------

    def _best(self, worker: str) -> Iterator[Row]:
        """Remove and yield ready rows, best first; suspects while *worker* has room for them."""
        plain, suspects = self._ready, self._suspects
        while (suspect := suspects.top()) is not None:
            past = suspect.history
            assert past is not None
            room = ROOM - self._held_weight.get(worker, 0)
            if weight(past.crashes, self._max_crashes) > room:
                break
            other = plain.top()
            ahead = other is not None and (-other.priority, other.place) < (
                -suspect.priority,
                suspect.place,
            )
            row = (plain if ahead else suspects).pop()
            assert row is not None
            yield row
        yield from plain.best()

    def _only(self, ids: Sequence[str]) -> Iterator[Row]:
        """Ready rows among *ids*; their queues skip them later."""
        for task_id in ids:
            row = self._rows.get(task_id)
            if row is not None and row.mark == READY:
                yield row

    def _prune_limits(self) -> None:
        """Forget the limits of tasks that are done, once they are more than the others."""
        if len(self._limits) > 2 * len(self._rows) + CHUNK:
            self._limits = [entry for entry in self._limits if entry[2] in self._rows]
            heapify(self._limits)

    def _next_due(self) -> float | None:
        later = self._later
        while later and later[0][2].mark != SCHEDULED:
            heappop(later)
        return later[0][0] if later else None

    def _sweep(self, now: float) -> bool:
        """Take back lapsed leases, bury the expired, make ready what is due."""
        ended = False
        if now >= self._lapse:
            ended = self._sweep_leases(now)
        while self._limits and self._limits[0][0] <= now:
            limit, _, task_id = heappop(self._limits)
            found = self._rows.get(task_id)
            if found is None or found.history is None or found.history.expires != limit:
                continue
            if found.mark in (READY, SCHEDULED):
                self._bury(found, "expired")
                ended = True
        while self._later and self._later[0][0] <= now:
            row = heappop(self._later)[2]
            if row.mark != SCHEDULED:
                continue
            if row.place == 0:
                row.place = self._next()
                self._amount[SCHEDULED] -= 1
                row.mark = READY
                self._enqueue(row)
            else:
                self._put_back(row)
        past_ids = self._past
        while past_ids and next(iter(past_ids.values())) <= now:
            del past_ids[next(iter(past_ids))]
        return ended

    def _sweep_leases(self, now: float) -> bool:
        """Look at all leases: they lapse so rarely that keeping them sorted would cost more."""
        ended, self._lapse = False, math.inf
        for row in list(self._claimed.values()):
            lease = row.lease
            if lease is None or lease.deadline > now:
                self._lapse = min(self._lapse, math.inf if lease is None else lease.deadline)
                continue
            past = row.history = row.history or History()
            past.crashes += 1
            self._event("crashed", row)
            if past.crashes > self._max_crashes or 0.0 < past.expires <= now:
                self._bury(row, "crashed" if past.crashes > self._max_crashes else "expired")
                ended = True
            elif past.crashes == 1:
                self._suspect(row)
            else:
                self._put_back(row)
        return ended

    # -- telling -----------------------------------------------------------------------------

    def _hint(self, before: int, sooner: bool = False) -> None:
        if sooner or (before == 0 and self._amount[READY] > 0):
            self._signals.emit("ready")

    def _joined(self, ended: bool) -> None:
        if ended and not any(self._amount[:DEAD]):
            self._signals.emit("joined")

    def _event(self, kind: EventKind, row: Row, reason: str | None = None) -> None:
        if self._events.active:
            lease, past = row.lease, row.history
            attempts = 0 if past is None else past.attempts
            self._events.emit(
                TaskEvent(
                    kind,
                    row.id,
                    None if lease is None else lease.worker,
                    None if lease is None else lease.token,
                    None if lease is None else attempts + 1,
                    time.time(),
                    reason,
                )
            )


def _now() -> float:
    return asyncio.get_running_loop().time()
