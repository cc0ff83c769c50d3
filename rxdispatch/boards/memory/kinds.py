"""``Kinds``: the ready rows of a ``MemoryBoard`` by kind, and the counts of unfinished rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rxdispatch.boards.memory.ready_rows import ReadyRows
from rxdispatch.boards.memory.rows import DEAD, READY, Row

__all__ = ["Kind", "Kinds"]


class Kind:
    """
    The tasks of one kind.

    Attributes:
        name: The kind; its rows share this object.
        amount: How many rows are ready, scheduled and claimed.
        plain: The ready rows without a crash.
        suspects: The ready rows whose worker has died.
    """

    __slots__ = ("_woken", "amount", "name", "plain", "suspects")

    def __init__(self, name: str, woken: list[Kind]) -> None:
        self.name = name
        self.amount = [0, 0, 0]
        self.plain = ReadyRows()
        self.suspects = ReadyRows()
        self._woken = woken

    def append(self, row: Row) -> None:
        """Add a ready row that has the last place."""
        amount, past = self.amount, row.history
        if not amount[READY]:
            self._woken.append(self)
        amount[READY] += 1
        (self.plain if past is None or past.crashes == 0 else self.suspects).append(row)

    def put_back(self, row: Row) -> None:
        """Add a ready row at the place it had."""
        amount, past = self.amount, row.history
        if not amount[READY]:
            self._woken.append(self)
        amount[READY] += 1
        (self.plain if past is None or past.crashes == 0 else self.suspects).put_back(row)


class Kinds:
    """
    The kinds of a board that have unfinished tasks.

    A claim looks at the queues of the kinds that it asks for, and at no task of another kind.

    INVARIANT. Each unfinished row counts once, in the ``amount`` of its kind. A kind without
    unfinished rows is dropped, with the rows that its queues have still to skip. Only the default
    kind stays, since most boards have no other and are often empty.

    Attributes:
        named: The kinds by their names.
        paused: The kinds that are paused, with or without tasks.
        woken: The kinds that had no ready row at some time in this step, and then one.
        ended: Whether the last unfinished row of a kind has ended in this step.
    """

    __slots__ = ("ended", "named", "paused", "woken")

    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.woken: list[Kind] = []
        self.ended = False
        self.named = {"default": Kind("default", self.woken)}

    # -- changes -----------------------------------------------------------------------------

    def of(self, name: str) -> Kind:
        """Return the kind with that name; add it if it has no unfinished rows."""
        kind = self.named.get(name)
        if kind is None:
            kind = self.named[name] = Kind(name, self.woken)
        return kind

    def leave(self, row: Row) -> None:
        """Count *row* no longer; it, or a row that replaces it, is counted again in this step."""
        if row.mark < DEAD:
            self.named[row.kind].amount[row.mark] -= 1

    def end(self, row: Row) -> None:
        """Count *row* no longer; drop its kind if this was the last unfinished row."""
        mark = row.mark
        if mark < DEAD:
            amount = self.named[row.kind].amount
            amount[mark] -= 1
            if not (amount[mark] or any(amount)):
                self.ended = True
                if row.kind != "default":
                    del self.named[row.kind]

    # -- reading -----------------------------------------------------------------------------

    def claimable(self, names: Sequence[str] | None) -> list[Kind]:
        """Return those of the kinds, or of all kinds, that have ready rows and are not paused."""
        named, paused = self.named, self.paused
        found: list[Kind] = []
        for name in named if names is None else names:
            kind = named.get(name)
            if kind is not None and kind.amount[READY] and name not in paused:
                found.append(kind)
        return found

    def amounts(self, names: Sequence[str] | None) -> tuple[int, int, int]:
        """Return how many rows of the kinds, or of all kinds, are ready, scheduled and claimed."""
        ready = scheduled = claimed = 0
        for name in self.named if names is None else names:
            kind = self.named.get(name)
            if kind is not None:
                ready += kind.amount[0]
                scheduled += kind.amount[1]
                claimed += kind.amount[2]
        return ready, scheduled, claimed

    def first(self, most: int) -> Iterator[Row]:
        """Yield the first ready rows of each kind and priority, up to *most* of each queue."""
        for kind in self.named.values():
            yield from kind.plain.first(most)
            yield from kind.suspects.first(most)

    # -- signals -----------------------------------------------------------------------------

    def take_woken(self) -> bool:
        """Return whether a kind was woken and still has ready rows; forget which."""
        woken = self.woken
        for kind in woken:
            if kind.amount[READY]:
                woken.clear()
                return True
        woken.clear()
        return False
