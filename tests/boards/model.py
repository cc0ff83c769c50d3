"""A board that is as simple as possible, to compare the real ones with."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal

import attrs

__all__ = ["Ending", "Entry", "Held", "Model", "Verb"]

Verb = Literal["done", "retry", "dead", "release"]


@attrs.frozen
class Entry:
    """A task to submit."""

    id: str
    priority: int = 0
    delay: float = 0.0
    ttl: float = math.inf
    max_attempts: int = 5
    kind: str = "default"


@attrs.define
class Row:
    """A task on the board."""

    entry: Entry
    place: int
    expires: float
    mark: str = "READY"
    attempts: int = 0
    crashes: int = 0
    error: str | None = None
    reason: str = ""
    due: tuple[float, int] = (0.0, 0)
    to_the_end: bool = False
    token: int = 0
    deadline: float = 0.0
    worker: str = ""


@attrs.define(eq=False)
class Held:
    """A claim, and its first settlement."""

    id: str
    token: int
    attempt: int
    max_attempts: int
    answer: tuple[Verb, bool] | None = None


@attrs.frozen
class Ending:
    """One settlement."""

    held: Held
    verb: Verb
    delay: float = 0.0


@attrs.define
class Model:
    """
    A board in one dictionary of tasks, which finds everything by a full scan.

    Attributes:
        dead: For each step in which tasks died, their ids; the order within a step is free.
    """

    max_crashes: int
    remember: float
    now: float = 0.0
    rows: dict[str, Row] = attrs.field(factory=dict[str, Row])
    past: dict[str, float] = attrs.field(factory=dict[str, float])
    dead: list[set[str]] = attrs.field(factory=list[set[str]])
    done: int = 0
    paused: bool = False
    paused_kind: str | None = None
    last: int = 0

    def _next(self) -> int:
        self.last += 1
        return self.last

    def submit(self, entries: Iterable[Entry]) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Return which ids are accepted, and which are known."""
        accepted: list[str] = []
        duplicates: list[str] = []
        for entry in entries:
            place = self._next()
            if entry.id in self.rows or self.past.get(entry.id, -math.inf) > self.now:
                duplicates.append(entry.id)
                continue
            accepted.append(entry.id)
            row = self.rows[entry.id] = Row(entry, place, self.now + entry.ttl)
            if entry.delay:
                self._schedule(row, entry.delay)
        return tuple(accepted), tuple(duplicates)

    def _schedule(self, row: Row, delay: float) -> None:
        row.mark = "SCHEDULED"
        row.due = (self.now + delay, self._next())

    def _die(self, row: Row, reason: str) -> None:
        row.mark, row.reason, row.expires = "DEAD", reason, math.inf
        self.dead[-1].add(row.entry.id)

    def step(self) -> None:
        """Begin a step: tasks that die in it die at the same time."""
        self.dead = [ids for ids in self.dead if ids]
        self.dead.append(set())

    def sweep(self) -> None:
        """Do what every claim does first."""
        rows = self.rows.values()
        for row in rows:
            if row.mark == "CLAIMED" and row.deadline <= self.now:
                row.crashes += 1
                row.mark = "READY"
                if row.crashes > self.max_crashes:
                    self._die(row, "crashed")
        for row in rows:
            if row.mark in {"READY", "SCHEDULED"} and row.expires <= self.now:
                self._die(row, "expired")
        due = [row for row in rows if row.mark == "SCHEDULED" and row.due[0] <= self.now]
        for row in sorted(due, key=lambda row: row.due):
            row.mark = "READY"
            if row.to_the_end:
                row.place, row.to_the_end = self._next(), False

    def swept(self) -> bool:
        """Return whether a sweep would find nothing to do."""
        for row in self.rows.values():
            if row.mark == "CLAIMED":
                ends = row.deadline
            elif row.mark == "DEAD":
                ends = math.inf
            else:
                ends = min(row.expires, row.due[0] if row.mark == "SCHEDULED" else math.inf)
            if ends <= self.now:
                return False
        return True

    def order(self) -> list[str]:
        """Return the ids of the ready tasks, in the order of claiming."""
        ready = [row for row in self.rows.values() if row.mark == "READY"]
        ready.sort(key=lambda row: (-row.entry.priority, row.place))
        return [row.entry.id for row in ready]

    def claim(
        self,
        limit: int,
        ids: Sequence[str] | None,
        kinds: Sequence[str] | None,
        lease: float,
        worker: str = "",
    ) -> list[Row]:
        """Return the claimed tasks; the caller must fill in the tokens."""
        self.sweep()
        if self.paused:
            return []
        ready = [i for i in self.order() if self.rows[i].entry.kind != self.paused_kind]
        if kinds is not None:
            ready = [i for i in ready if self.rows[i].entry.kind in kinds]
        if ids is not None:
            ready = [task_id for task_id in dict.fromkeys(ids) if task_id in ready]
        else:
            ready = self.fit(ready, worker)
        found = [self.rows[task_id] for task_id in ready[:limit]]
        for row in found:
            row.mark, row.deadline, row.worker = "CLAIMED", self.now + lease, worker
        return found

    def weight(self, row: Row) -> int:
        """Return 0 for a task without a crash, 4 for a suspect that is held alone, else 1."""
        if row.crashes == 0:
            return 0
        return 1 if row.crashes == 1 and self.max_crashes > 1 else 4

    def held(self, worker: str) -> int:
        """Return the weight of the suspects that a worker holds."""
        rows = self.rows.values()
        return sum(
            self.weight(row) for row in rows if row.mark == "CLAIMED" and row.worker == worker
        )

    def fit(self, ready: list[str], worker: str) -> list[str]:
        """Leave out the suspects, from the first one for which the worker has no room."""
        held, full, fit = self.held(worker), False, list[str]()
        for task_id in ready:
            weight = self.weight(self.rows[task_id])
            if weight:
                held += weight
                full = full or held > 4
                if full:
                    continue
            fit.append(task_id)
        return fit

    def _held(self, held: Held) -> Row | None:
        row = self.rows.get(held.id)
        if row is None or row.mark != "CLAIMED" or row.token != held.token:
            return None
        return row

    def renew(self, claims: Iterable[Held], lease: float) -> list[Held]:
        """Return which of *claims* are lost."""
        lost: list[Held] = []
        for held in claims:
            row = self._held(held)
            if row is None:
                lost.append(held)
            else:
                row.deadline = self.now + lease
        return lost

    def settle(self, ending: Ending) -> bool:
        """Return the answer to one settlement."""
        held, verb = ending.held, ending.verb
        if held.answer is None:
            row = self._held(held)
            held.answer = (verb, row is not None)
            if row is not None:
                self._end(row, ending)
        return held.answer == (verb, True)

    def _end(self, row: Row, ending: Ending) -> None:
        verb, held = ending.verb, ending.held
        if verb == "done":
            del self.rows[held.id]
            self.done += 1
            if self.remember:
                self.past[held.id] = self.now + self.remember
            return
        if verb != "release":
            row.attempts, row.error = row.attempts + 1, verb
        if verb == "dead":
            self._die(row, "unfit")
        elif verb == "retry" and held.attempt >= held.max_attempts:
            self._die(row, "failed")
        elif row.expires <= self.now:
            self._die(row, "expired")
        elif ending.delay:
            row.to_the_end = verb == "retry"
            self._schedule(row, ending.delay)
        else:
            row.mark = "READY"
            if verb == "retry":
                row.place = self._next()

    def cancel(self, ids: Iterable[str]) -> list[bool]:
        """Return for each id whether there was something to cancel."""
        answers: list[bool] = []
        for task_id in ids:
            row = self.rows.get(task_id)
            answers.append(row is not None and row.mark != "DEAD")
            if row is not None and row.mark != "DEAD":
                self._die(row, "cancelled")
        return answers

    def redrive(self, ids: Iterable[str]) -> int:
        """Make those of the tasks that are dead ready again; return how many."""
        count = 0
        for task_id in ids:
            row = self.rows.get(task_id)
            if row is not None and row.mark == "DEAD":
                count += 1
                for some in self.dead:
                    some.discard(task_id)
                self.rows[task_id] = Row(row.entry, self._next(), math.inf)
        return count

    def counts(self) -> tuple[int, int, int, int, int]:
        """Return how many are scheduled, ready, claimed, done and dead."""
        marks = [row.mark for row in self.rows.values()]
        scheduled, ready, claimed, dead = map(
            marks.count, ("SCHEDULED", "READY", "CLAIMED", "DEAD")
        )
        return scheduled, ready, claimed, self.done, dead

    def kinds(self) -> dict[str, int]:
        """Return how many tasks of each kind are scheduled, ready or claimed."""
        rows = self.rows.values()
        return dict(Counter(row.entry.kind for row in rows if row.mark != "DEAD"))

    def unfinished(self, kinds: Sequence[str]) -> int:
        """Return how many tasks of these kinds are scheduled, ready or claimed."""
        rows = self.rows.values()
        return sum(row.mark != "DEAD" for row in rows if row.entry.kind in kinds)

    def state(self, task_id: str) -> tuple[str, int, int, str | None] | None:
        """Return mark, attempts, crashes and error of a task."""
        row = self.rows.get(task_id)
        if row is None:
            known = self.past.get(task_id, -math.inf) > self.now
            return ("DONE", 0, 0, None) if known else None
        running = row.mark == "CLAIMED"
        return row.mark, row.attempts + running, row.crashes, row.error
