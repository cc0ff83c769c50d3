"""``TaskTable``: the tasks of a ``MemoryBoard``, and the changes of their marks."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from heapq import heapify, heappop, heappush

from rxdispatch.boards.engine import CHUNK, DEFAULTS, ClaimedTask
from rxdispatch.boards.memory.enqueue_times import EnqueueTimes
from rxdispatch.boards.memory.kinds import Kinds
from rxdispatch.boards.memory.merged_rows import MergedRows
from rxdispatch.boards.memory.ready_rows import ReadyRows
from rxdispatch.boards.memory.rows import (
    CLAIMED,
    DEAD,
    GONE,
    READY,
    SCHEDULED,
    History,
    Lease,
    Row,
)
from rxdispatch.boards.suspects import ROOM, weight
from rxdispatch.boards.task_codec import NewTask, delay_of
from rxdispatch.claim import Settlement
from rxdispatch.relay import Relay
from rxdispatch.results import EventKind, TaskEvent

__all__ = ["TaskTable"]

_FIRST = 8
"""How many rows of each priority ``lag`` looks at. The first is not always the oldest."""


class TaskTable:
    """
    Rows by id, and the queues, heaps and counts that follow from their marks.

    INVARIANT. ``kinds`` counts the rows of each kind and mark; a row is in ``_claimed`` exactly
    while it has a lease, and in ``dead`` exactly while its mark is DEAD. Queues and heaps may hold
    rows whose mark has changed; they skip such rows.

    Attributes:
        rows: All tasks that are not done.
        dead: The dead tasks, oldest first.
        past: The ids of done tasks, and until when they are remembered.
        kinds: The ready rows by kind, and how many rows of each kind have each mark.
        done: How many tasks were done.
        events: What happens to tasks.
    """

    def __init__(self) -> None:
        self.max_crashes, self.remember, self.dead_limit = DEFAULTS
        self.rows: dict[str, Row] = {}
        self.dead: dict[str, Row] = {}
        self.past: dict[str, float] = {}
        self.kinds = Kinds()
        self.done = 0
        self.events: Relay[TaskEvent] = Relay("events")
        self._held_weight: dict[str, int] = {}  # The weight of held suspects, by worker label.
        self._claimed: dict[str, Row] = {}
        self._lapse = math.inf  # No lease lapses before this time.
        self._later: list[tuple[float, int, Row]] = []
        self._later_limit = CHUNK  # With more, it drops the rows that are no longer scheduled.
        self._limits: list[tuple[float, int, str]] = []
        self._number = 0
        self._enqueue_times = EnqueueTimes()
        self._tie = 0
        self._token = time.time_ns() // 1000

    # -- adding and claiming -----------------------------------------------------------------

    def add(self, entry: NewTask, now: float) -> bool:
        """Add a task; returns False if its id is known."""
        if entry.id in self.rows or (self.past and self.past.get(entry.id, 0.0) > now):
            return False
        kind = self.kinds.named.get(entry.kind) or self.kinds.of(entry.kind)
        row = Row(entry.id, entry.record, self._next(now), entry.priority, READY, kind.name)
        self.rows[entry.id] = row
        if entry.ttl:
            row.history = History(expires=now + entry.ttl)
            heappush(self._limits, (now + entry.ttl, row.place, row.id))
            self._prune_limits()
        if entry.delay:
            self._schedule(row, now + entry.delay)
        else:
            kind.append(row)
        self._event("submitted", row)
        return True

    def best(self, worker: str, kinds: Sequence[str] | None) -> Iterator[Row]:
        """
        Remove and yield the ready rows of *kinds*, best first; None means all kinds.

        It yields suspects while *worker* has room for the first one of these kinds. It skips kinds
        that are paused.
        """
        found = self.kinds.claimable(kinds)
        plain: ReadyRows | MergedRows
        suspects: ReadyRows | MergedRows
        if len(found) == 1:
            plain, suspects = found[0].plain, found[0].suspects
        else:
            plain = MergedRows([kind.plain for kind in found])
            suspects = MergedRows([kind.suspects for kind in found])
        while (suspect := suspects.top()) is not None:
            past = suspect.history
            assert past is not None
            room = ROOM - self._held_weight.get(worker, 0)
            if weight(past.crashes, self.max_crashes) > room:
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

    def only(self, ids: Sequence[str]) -> Iterator[Row]:
        """Yield the ready rows among *ids* unless their kind is paused; queues skip them later."""
        paused = self.kinds.paused
        for task_id in ids:
            row = self.rows.get(task_id)
            if row is not None and row.mark == READY and row.kind not in paused:
                yield row

    def take(self, row: Row, worker: str, deadline: float) -> ClaimedTask:
        """Claim a ready row."""
        self._token += 1
        amount = self.kinds.named[row.kind].amount
        amount[READY] -= 1
        amount[CLAIMED] += 1
        row.mark = CLAIMED
        row.lease = Lease(self._token, deadline, worker)
        self._claimed[row.id] = row
        if deadline < self._lapse:  # noqa: PLR1730 - min() is a call for each task
            self._lapse = deadline
        past = row.history
        if past is not None and past.crashes:
            row.lease.weight = weight(past.crashes, self.max_crashes)
            self._held_weight[worker] = self._held_weight.get(worker, 0) + row.lease.weight
        self._event("claimed", row)
        return ClaimedTask(
            row.id,
            self._token,
            row.record,
            0 if past is None else past.attempts,
            0 if past is None else past.crashes,
        )

    # -- holding and ending ------------------------------------------------------------------

    def renew(self, task_id: str, token: int, deadline: float) -> bool:
        """Extend a lease; returns False if the token no longer holds."""
        row = self._held(task_id, token)
        if row is None or row.lease is None:
            return False
        row.lease.deadline = deadline
        self._lapse = min(self._lapse, deadline)
        return True

    def end(self, ending: Settlement, now: float) -> bool:
        """End a claim; returns False if its token no longer holds."""
        row = self._held(ending.claim.task.id, ending.claim.token)
        if row is None:
            return False
        past = row.history
        expired = past is not None and 0.0 < past.expires <= now
        if ending.verdict == "done":
            self._event("done", row)
            self._forget(row)
            self.done += 1
            if self.remember:
                self.past.pop(row.id, None)
                self.past[row.id] = now + self.remember
        elif ending.verdict == "released" and not expired:
            self._event("released", row)
            if ending.delay:
                self.kinds.leave(row)
                self._drop_lease(row)
                self._schedule(row, now + ending.delay)
            else:
                self._put_back(row)
        elif ending.verdict == "retry" and not expired:
            past = row.history = past or History()
            past.error = ending.error
            self._event("retried", row)
            past.attempts += 1
            row = self._replace(row, self._next(now))
            if ending.delay:
                # A retried task joins the end when its delay is over.
                row.place = 0
                self._schedule(row, now + ending.delay)
            else:
                self._enqueue(row)
        else:
            past = row.history = past or History()
            if ending.verdict != "released":
                past.error, past.traceback = ending.error, ending.traceback
            self.bury(row, ending.reason if ending.verdict == "dead" else "expired")
            if ending.verdict != "released":
                past.attempts += 1
        return True

    def bury(self, row: Row, reason: str) -> None:
        """Make a row dead, and discard the oldest dead rows if there are too many."""
        past = row.history = row.history or History()
        past.reason = reason
        past.expires = 0.0
        past.at = max(time.time(), self._last_death() + 1e-6)
        self._event("dead", row, reason)
        self.kinds.end(row)
        row.mark = DEAD
        self._drop_lease(row)
        self.dead[row.id] = row
        while len(self.dead) > self.dead_limit:
            oldest = self.dead.pop(next(iter(self.dead)))
            self._event("discarded", oldest)
            self._forget(oldest)

    def redrive(self, row: Row, now: float) -> None:
        """Make a dead row ready at the end of its priority."""
        del self.dead[row.id]
        row.history = None
        fresh = self._replace(row, self._next(now))
        self._enqueue(fresh)
        self._event("redriven", fresh)

    # -- time --------------------------------------------------------------------------------

    def next_due(self) -> float | None:
        """Return when the next scheduled row is due; None if no row is scheduled."""
        later = self._later
        while later and later[0][2].mark != SCHEDULED:
            heappop(later)
        return later[0][0] if later else None

    def lag(self, now: float) -> float:
        """Return the seconds since the oldest ready row took its place; 0 if nothing is ready."""
        first = self.kinds.first(_FIRST)
        return max((now - self._since(row, now) for row in first), default=0.0)

    def sweep(self, now: float) -> None:
        """End lapsed leases, make expired tasks dead, and make due tasks ready."""
        if now >= self._lapse:
            self._sweep_leases(now)
        while self._limits and self._limits[0][0] <= now:
            limit, _, task_id = heappop(self._limits)
            found = self.rows.get(task_id)
            if found is None or found.history is None or found.history.expires != limit:
                continue
            if found.mark in (READY, SCHEDULED):
                self.bury(found, "expired")
        while self._later and self._later[0][0] <= now:
            row = heappop(self._later)[2]
            if row.mark != SCHEDULED:
                continue
            if row.place == 0:
                row.place = self._next(now)
                self.kinds.leave(row)
                row.mark = READY
                self._enqueue(row)
            else:
                self._put_back(row)
        past_ids = self.past
        while past_ids and next(iter(past_ids.values())) <= now:
            del past_ids[next(iter(past_ids))]

    def _sweep_leases(self, now: float) -> None:
        """End lapsed leases. Few ever lapse, so a look at all is cheaper than sorting them."""
        self._lapse = math.inf
        for row in list(self._claimed.values()):
            lease = row.lease
            if lease is None or lease.deadline > now:
                self._lapse = min(self._lapse, math.inf if lease is None else lease.deadline)
                continue
            past = row.history = row.history or History()
            past.crashes += 1
            self._event("crashed", row)
            if past.crashes > self.max_crashes or 0.0 < past.expires <= now:
                self.bury(row, "crashed" if past.crashes > self.max_crashes else "expired")
            elif past.crashes == 1:
                self._suspect(row)
            else:
                self._put_back(row)

    def _since(self, row: Row, now: float) -> float:
        """Return when *row* was submitted, was due, or was ready for a retry."""
        given = self._enqueue_times.given(row.place)
        failed = row.history is not None and row.history.attempts > 0
        # A delayed task has the place of its submission.
        return given if failed else min(now, given + delay_of(row.record))

    # -- moving one row ----------------------------------------------------------------------

    def _next(self, now: float) -> int:
        self._number += 1
        self._enqueue_times.note(self._number, now)
        return self._number

    def _held(self, task_id: str, token: int) -> Row | None:
        row = self.rows.get(task_id)
        if row is None or row.lease is None or row.lease.token != token:
            return None
        return row

    def _replace(self, row: Row, place: int) -> Row:
        """Replace *row* by a new row at *place*; queues skip the old one when they reach it."""
        self.kinds.leave(row)
        row.mark = GONE
        self._drop_lease(row)
        fresh = Row(row.id, row.record, place, row.priority, READY, row.kind, False, row.history)
        self.rows[row.id] = fresh
        return fresh

    def _enqueue(self, row: Row) -> None:
        """Make a new row ready; it has the last place."""
        self.kinds.of(row.kind).append(row)

    def _put_back(self, row: Row) -> None:
        """Make *row* ready at its old place."""
        self.kinds.leave(row)
        self._drop_lease(row)
        row.mark = READY
        self.kinds.of(row.kind).put_back(row)

    def _suspect(self, row: Row) -> None:
        """Make *row*, whose worker died for the first time, ready at its place, as a suspect."""
        # A queue of plain rows may still hold the old row.
        fresh = self._replace(row, row.place)
        self.kinds.of(row.kind).put_back(fresh)

    def _schedule(self, row: Row, due: float) -> None:
        row.mark = SCHEDULED
        self.kinds.of(row.kind).amount[SCHEDULED] += 1
        self._tie += 1
        heappush(self._later, (due, self._tie, row))
        if len(self._later) > self._later_limit:
            # Cancelled rows would stay here until they are due.
            self._later = [entry for entry in self._later if entry[2].mark == SCHEDULED]
            heapify(self._later)
            self._later_limit = 2 * len(self._later) + CHUNK

    def _drop_lease(self, row: Row) -> None:
        lease, row.lease = row.lease, None
        if lease is not None and lease.weight:
            left = self._held_weight[lease.worker] - lease.weight
            if left:
                self._held_weight[lease.worker] = left
            else:
                del self._held_weight[lease.worker]
        self._claimed.pop(row.id, None)

    def _forget(self, row: Row) -> None:
        self.kinds.end(row)
        row.mark = GONE
        self._drop_lease(row)
        del self.rows[row.id]

    def _last_death(self) -> float:
        if not self.dead:
            return 0.0
        last = self.dead[next(reversed(self.dead))].history
        return 0.0 if last is None else last.at

    def _prune_limits(self) -> None:
        """Drop the ttls of done tasks once they outnumber the others."""
        if len(self._limits) > 2 * len(self.rows) + CHUNK:
            self._limits = [entry for entry in self._limits if entry[2] in self.rows]
            heapify(self._limits)

    def _event(self, kind: EventKind, row: Row, reason: str | None = None) -> None:
        if self.events.active:
            lease, past = row.lease, row.history
            attempts = 0 if past is None else past.attempts
            self.events.emit(
                TaskEvent(
                    kind,
                    row.id,
                    None if lease is None else lease.worker,
                    None if lease is None else lease.token,
                    None if lease is None else attempts + 1,
                    time.time(),
                    reason,
                    row.kind,
                )
            )
