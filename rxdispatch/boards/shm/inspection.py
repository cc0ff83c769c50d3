"""``Inspection``: reads counts, lag and the state of single tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

from rxdispatch.boards.engine import StoredState, Unfinished
from rxdispatch.boards.shm.holders import Holders
from rxdispatch.boards.shm.local.census import Census
from rxdispatch.boards.shm.local.local_index import LocalIndex
from rxdispatch.boards.shm.local.states import lapses
from rxdispatch.boards.shm.notifier import Notifier
from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.cells import Cells
from rxdispatch.boards.shm.storage.layout import make_mark
from rxdispatch.boards.task_codec import id_bytes, unpack_cause
from rxdispatch.results import Counts, KindState
from rxdispatch.task import Status

__all__ = ["Inspection"]

_STATUS: Final = {
    layout.FRESH: Status.READY,
    layout.READY: Status.READY,
    layout.FRESH_LATER: Status.SCHEDULED,
    layout.LATER: Status.SCHEDULED,
    layout.CLAIMED: Status.CLAIMED,
    layout.DEAD: Status.DEAD,
    layout.DONE: Status.DONE,
}


class Inspection:
    """
    Reads a board. It writes only to finish what another process has left half-done.

    Args:
        begin: Begins a step of the engine and returns the time; raises if the board is closed.
    """

    def __init__(
        self,
        cells: Cells,
        local_index: LocalIndex,
        census: Census,
        holders: Holders,
        notifier: Notifier,
        begin: Callable[[], int],
    ) -> None:
        self._cells = cells
        self._mapping = cells.mapping
        self._local_index = local_index
        self._census = census
        self._holders = holders
        self._notifier = notifier
        self._begin = begin

    async def counts(self) -> Counts:
        """How many tasks have each mark."""
        load = self._mapping.load
        accepted, discarded, amounts = 0, 0, list[int]()
        # The count is repeated while tasks move, but not for ever.
        for _ in range(100):
            moves = load(layout.MOVES)
            accepted = load(layout.ACCEPTED if load(layout.STAGING) else layout.STAGED_ACCEPTED)
            amounts = self._census.of_all()
            discarded = load(layout.DISCARDED)
            intent = load(layout.INTENT)
            marked = make_mark(layout.DISCARD, intent)
            if intent and self._cells.mark(load(layout.INTENT_CELL)) == marked:
                discarded = load(layout.INTENT_TOTAL)
            if moves == load(layout.MOVES) or self._notifier.events.active:
                break
            await asyncio.sleep(0)
        scheduled, ready = _scheduled(amounts), _ready(amounts)
        claimed, dead = amounts[layout.CLAIMED], amounts[layout.DEAD]
        done = accepted - scheduled - ready - claimed - dead - discarded
        return Counts(scheduled, ready, claimed, max(0, done), dead)

    async def unfinished(self, now: int, kinds: Sequence[str] | None) -> Unfinished:
        """How many tasks are unfinished; exact if no task moves during the count."""
        census = self._census
        if kinds is None:
            amounts = census.of_all()
        else:
            amounts = await census.of_kinds(self._cells.kinds.chosen(kinds))
        due = self._local_index.next_due()
        # A task that is moving between two cells may be in none of the other states.
        claimed = amounts[layout.CLAIMED] + amounts[layout.MOVED] + amounts[layout.PENDING]
        due_in = None if due is None else max(0.0, (due - now) / 1e6)
        return Unfinished(_scheduled(amounts), _ready(amounts), claimed, due_in)

    async def kinds(self) -> dict[str, KindState]:
        """The kinds that have unfinished tasks."""
        self._begin()
        amounts = await self._census.by_kind()
        table = self._cells.kinds
        paused = {table.name(kind, b"") for kind in table.paused() if table.is_named(kind)}
        return {
            kind: KindState(amount, kind in paused) for kind, amount in amounts.items() if amount
        }

    async def lag(self) -> float:
        """Seconds since the oldest ready task took its place; 0 if there is none."""
        now = self._begin()
        self._local_index.listen()
        since = now
        for found in self._local_index.oldest():
            if found is None:
                await asyncio.sleep(0)
                self._begin()
            elif (known := self._cells.read(*found)) is not None:
                since = min(since, known[0].due)
        return max(0.0, (now - since) / 1e6)

    def state(self, task_id: str) -> StoredState | None:
        """The stored state of one task; None if its id is not known."""
        now, cells = self._begin(), self._cells
        raw = id_bytes(task_id)
        while (found := cells.find(raw)) is not None:
            cell, mark = found
            state = mark >> layout.STATE_SHIFT
            if state == layout.DONE:
                if lapses(mark, now // layout.TICK) <= 0:
                    return None
                return StoredState(Status.DONE, b"", 0, 0, None, "")
            head, inline = cells.head(cell)
            record = cells.body(head, inline)[1]
            error = unpack_cause(cells.texts(head)[1])[0]
            worker = self._holders.of(cell, mark) if state == layout.CLAIMED else b""
            if cells.mark(cell) == mark:
                return StoredState(
                    _STATUS[state],
                    record,
                    head.attempts,
                    head.crashes,
                    worker.decode("utf-8", "replace") or None,
                    error,
                )
        return None


def _scheduled(amounts: list[int]) -> int:
    return amounts[layout.LATER] + amounts[layout.FRESH_LATER]


def _ready(amounts: list[int]) -> int:
    return amounts[layout.READY] + amounts[layout.FRESH]
