"""``MemoryEngine``: keeps the tasks of a board in dictionaries of this process."""

from __future__ import annotations

import asyncio
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
from rxdispatch.boards.memory.rows import DEAD, STATUS, History
from rxdispatch.boards.memory.table import TaskTable
from rxdispatch.boards.task_codec import NewTask
from rxdispatch.claim import Settlement
from rxdispatch.relay import Relay
from rxdispatch.results import Counts, KindState, TaskEvent
from rxdispatch.task import Status

__all__ = ["MemoryEngine"]


class MemoryEngine(SignalEngine):
    """
    Keeps the tasks of a board in a table of this process, for one event loop.

    It reads the time from the running loop, so that leases and delays run on virtual time, too.
    """

    def __init__(self) -> None:
        self._options = Options()
        self._table = TaskTable()
        self._paused = False
        self._signals: Relay[Signal] = Relay("signals")
        self.cancelled: Relay[Sequence[int]] = Relay("cancelled")

    @property
    def instant(self) -> bool:
        """False: claims do not wait here, but a subclass may make them wait."""
        return False

    @property
    def signals(self) -> Observable[Signal]:
        """Hot: tasks may be ready, or none may be unfinished."""
        return self._signals.observable

    @property
    def events(self) -> Observable[TaskEvent]:
        """Hot: what happens to tasks."""
        return self._table.events.observable

    @property
    def unused(self) -> bool:
        """Whether a new engine could replace it; only the number of done tasks would be lost."""
        table = self._table
        paused = self._paused or table.kinds.paused
        kept = table.rows or table.past or paused or self._options != Options()
        return not kept and not self._signals.active and not table.events.active

    def agree(self, options: Options) -> None:
        """
        Keep the options that a handle gives.

        Raises:
            ConfigError: If another handle has given a different value before.
        """
        self._options = self._options.merged(options)
        table = self._table
        table.max_crashes, table.remember, table.dead_limit = self._options.filled()

    # -- the steps ---------------------------------------------------------------------------

    async def submit(self, entries: Sequence[NewTask]) -> list[bool]:
        """Add tasks; returns False where the id is known."""
        now, table = _now(), self._table
        earliest = table.next_due()
        answers = [table.add(entry, now) for entry in entries]
        self._signal(self._sooner(earliest))
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
        now, table = _now(), self._table
        table.sweep(now)
        found: list[ClaimedTask] = []
        if not self._paused:
            source = table.best(worker, kinds) if ids is None else table.only(ids)
            deadline, take = now + lease, table.take
            while len(found) < limit and (row := next(source, None)) is not None:
                found.append(take(row, worker, deadline))
        self._signal()
        return ClaimReply(found, self._due_in(now))

    async def renew(self, held: Sequence[tuple[str, int]], lease: float) -> list[bool]:
        """Extend leases; returns False where the token no longer holds."""
        deadline, renew = _now() + lease, self._table.renew
        return [renew(task_id, token, deadline) for task_id, token in held]

    async def settle(self, settlements: Sequence[Settlement]) -> list[bool]:
        """End claims; returns False where the token no longer holds."""
        now, table = _now(), self._table
        earliest = table.next_due()
        answers = [table.end(settlement, now) for settlement in settlements]
        self._signal(self._sooner(earliest))
        return answers

    async def cancel(self, ids: Sequence[str]) -> list[bool]:
        """Make tasks dead as cancelled; returns False where there is nothing to cancel."""
        table = self._table
        answers: list[bool] = []
        ended: list[int] = []
        for task_id in ids:
            row = table.rows.get(task_id)
            answers.append(row is not None and row.mark != DEAD)
            if row is not None and row.mark != DEAD:
                if row.lease is not None:
                    ended.append(row.lease.token)
                table.bury(row, "cancelled")
        self._signal()
        if ended:
            self.cancelled.emit(ended)
        return answers

    async def redrive(self, ids: Sequence[str] | None, until: str) -> tuple[int, str]:
        """Make dead tasks ready; returns how many, and *until* for the next call."""
        now, table = _now(), self._table
        wanted = list(islice(table.dead, CHUNK)) if ids is None else list(dict.fromkeys(ids))
        rows = [row for task_id in wanted if (row := table.dead.get(task_id)) is not None]
        for row in rows:
            table.redrive(row, now)
        self._signal()
        return len(rows), until

    async def pause(self, paused: bool, kind: str | None) -> None:
        """Pause or resume all claims; or those of a kind, apart from the pause of all."""
        if kind is None:
            self._paused = paused
        elif paused:
            self._table.kinds.paused.add(kind)
        else:
            self._table.kinds.paused.discard(kind)
        if not paused:
            self._signals.emit("ready")

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        table = self._table
        ready, scheduled, claimed = table.kinds.amounts(None)
        return Counts(scheduled, ready, claimed, table.done, len(table.dead))

    async def kinds(self) -> dict[str, KindState]:
        """The kinds that have unfinished tasks."""
        kinds = self._table.kinds
        return {
            name: KindState(unfinished, name in kinds.paused)
            for name, kind in kinds.named.items()
            if (unfinished := sum(kind.amount))
        }

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place; 0 if there is none."""
        return self._table.lag(_now())

    async def get(self, task_id: str) -> StoredState | None:
        """The stored state of one task; None if its id is not known."""
        row = self._table.rows.get(task_id)
        if row is None:
            if self._table.past.get(task_id, 0.0) > _now():
                return StoredState(Status.DONE, b"", 0, 0, None, "")
            return None
        past = row.history or History()
        worker = None if row.lease is None else row.lease.worker
        return StoredState(
            STATUS[row.mark], row.record, past.attempts, past.crashes, worker, past.error
        )

    async def read(self, ids: Sequence[str]) -> list[bytes | None]:
        """The records of tasks in any state; None for an id without a task."""
        rows = [self._table.rows.get(task_id) for task_id in ids]
        return [None if row is None else row.record for row in rows]

    async def dead(self, after: str) -> tuple[list[DeadRow], str]:
        """A page of dead tasks, oldest first, and *after* for the next page."""
        start = float(after or "-inf")
        page: list[DeadRow] = []
        for row in self._table.dead.values():
            past = row.history or History()
            if past.at > start:
                page.append(
                    DeadRow(
                        row.id,
                        row.record,
                        past.reason,
                        past.error,
                        past.attempts,
                        past.crashes,
                        past.at,
                        past.traceback,
                        row.kind,
                    )
                )
                if len(page) == CHUNK:
                    break
        return page, repr(page[-1].at) if page else after

    async def tick(self, kinds: Sequence[str] | None) -> Unfinished:
        """Sweep, and count what is unfinished; ``due_in`` is that of all kinds."""
        now, table = _now(), self._table
        table.sweep(now)
        self._signal()
        ready, scheduled, claimed = table.kinds.amounts(kinds)
        return Unfinished(scheduled, ready, claimed, self._due_in(now))

    # -- signals -----------------------------------------------------------------------------

    def _due_in(self, now: float) -> float | None:
        due = self._table.next_due()
        return None if due is None else max(0.0, due - now)

    def _sooner(self, earliest: float | None) -> bool:
        """Whether a scheduled task is due before *earliest*, the due time before this step."""
        due = self._table.next_due()
        return due is not None and (earliest is None or due < earliest)

    def _signal(self, sooner: bool = False) -> None:
        """Emit what this step has changed; *sooner* as :meth:`_sooner` returns it."""
        kinds = self._table.kinds
        # A hint for each kind: its workers may be waiting while tasks of other kinds are ready.
        if (kinds.woken and kinds.take_woken()) or sooner:
            self._signals.emit("ready")
        if kinds.ended:
            kinds.ended = False
            self._signals.emit("joined")


def _now() -> float:
    return asyncio.get_running_loop().time()
