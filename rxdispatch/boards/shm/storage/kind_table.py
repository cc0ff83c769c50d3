"""``KindTable``: the kinds of a board's tasks, their numbers, and which of them are paused."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import Final, NamedTuple

from rxdispatch.boards.shm.storage import layout
from rxdispatch.boards.shm.storage.mapping import Mapping
from rxdispatch.boards.task_codec import kind_of
from rxdispatch.errors import ConfigError

__all__ = ["DEFAULT", "KindChoice", "KindTable"]

DEFAULT: Final = "default"
"""The kind with the number 0, which has no entry in the table."""

_NOTHING: Final = frozenset[int]()


class KindChoice(NamedTuple):
    """
    The kinds that a claim may take: those of ``only``, or all except those of ``paused``.

    It is hashable, so that a process can remember what it has seen for each choice.
    """

    only: frozenset[int] | None
    paused: frozenset[int]

    def allows(self, kind: int) -> bool:
        """Whether the claim may take tasks of a kind."""
        return kind not in self.paused if self.only is None else kind in self.only


class KindTable:
    """
    Numbers for kinds, in a table in shared memory.

    INVARIANT. The entries are filled in order, each by one compare-and-swap, and never change: so
    the first empty one ends the table, and what a process has read stays true. An entry is a
    digest of 64 bits, as a name does not fit into a word. (With all 1,024 kinds, the chance that
    two digests are equal is below 10^-13.) So a process knows the name of a kind only if it was
    given that name, or has read it in a task.
    """

    def __init__(self, mapping: Mapping) -> None:
        self._mapping = mapping
        self._table = mapping.geometry.kinds
        self._digests: dict[int, int] = {}
        self._numbers = {DEFAULT: 0}
        self._names = {0: DEFAULT}
        self._end = 1  # of the entries that this process has read

    # -- numbers -----------------------------------------------------------------------------

    def number(self, kind: str) -> int | None:
        """Return the number of a kind; None if the board has never had a task of that kind."""
        known = self._numbers.get(kind)
        if known is None:
            known = self._read(digest_of(kind))
            if known is not None:
                self._numbers[kind] = known
                self._names[known] = kind
        return known

    def registered(self, kind: str) -> int:
        """
        Return the number of a kind, which gets one if it has none.

        Raises:
            ConfigError: If all numbers are taken.
        """
        digest = digest_of(kind)
        while (known := self.number(kind)) is None:
            if self._end == layout.KINDS:
                raise ConfigError(
                    f"a board in shared memory must have at most {layout.KINDS:,} kinds of tasks "
                    "in its life",
                    kind,
                )
            self._mapping.cas(self._table + self._end * layout.KIND, 0, digest)
        return known

    def _read(self, digest: int) -> int | None:
        """Return the number of a digest, after reading the entries that are new."""
        load, table = self._mapping.load, self._table
        while self._end < layout.KINDS and (found := load(table + self._end * layout.KIND)):
            self._digests[found] = self._end
            self._end += 1
        return self._digests.get(digest)

    @property
    def only_default(self) -> bool:
        """Whether the board has never had a task of another kind than ``default``."""
        return self._mapping.load(self._table + layout.KIND) == 0

    def is_named(self, number: int) -> bool:
        """Whether this process knows the name of a kind."""
        return number in self._names

    def name(self, number: int, record: bytes) -> str:
        """Return the name of a kind, given the record of a task; ``default`` if unreadable."""
        name = self._names.get(number)
        if name is None and record:
            # This keeps the name if the table has the digest of it.
            self.number(kind_of(record))
            name = self._names.get(number)
        return name or DEFAULT

    def chosen(self, kinds: Sequence[str]) -> frozenset[int]:
        """Return the numbers of *kinds*, without kinds that no task ever had."""
        numbers = map(self.number, kinds)
        return frozenset([number for number in numbers if number is not None])

    # -- versions ----------------------------------------------------------------------------

    def arrives(self, kind: int) -> None:
        """
        Count a new version of a task of a kind, or a chunk of new tasks.

        A process counts the version when others can already see its cell, but before the version
        replaces another one, or before the chunk is submitted.
        """
        self._mapping.add(self._table + kind * layout.KIND + 8, 1)

    def arrivals(self, kinds: frozenset[int]) -> list[int]:
        """Return how many versions each of *kinds* has had."""
        load = self._mapping.load
        return [load(self._table + kind * layout.KIND + 8) for kind in kinds]

    # -- pauses ------------------------------------------------------------------------------

    def pause(self, paused: bool, kind: str | None) -> None:
        """Pause or resume one kind, or all claims."""
        if kind is None:
            self._set(layout.PAUSED, layout.ALL_PAUSED, paused)
            return
        number = self.registered(kind) if paused else self.number(kind)
        if number is None:
            return
        if paused:
            # It stays set, because a process that cleared it could hide a new pause.
            self._set(layout.PAUSED, layout.KINDS_PAUSED, True)
        self._set(layout.PAUSED_KINDS + (number >> 6) * 8, 1 << (number & 63), paused)

    def choice(self, kinds: Sequence[str] | None) -> KindChoice | None:
        """Return the choice of a claim that asks for *kinds*; None if it may take everything."""
        paused = self.paused()
        if kinds is None:
            return KindChoice(None, paused) if paused else None
        only = self.chosen(kinds)
        return KindChoice(only - paused if paused else only, _NOTHING)

    def paused(self) -> frozenset[int]:
        """Return the kinds that are paused."""
        if not self._mapping.load(layout.PAUSED) & layout.KINDS_PAUSED:
            return _NOTHING
        at = layout.PAUSED_KINDS
        bits = int.from_bytes(self._mapping.mmap[at : at + layout.KINDS // 8], "little")
        return frozenset(kind for kind in range(bits.bit_length()) if bits >> kind & 1)

    def _set(self, at: int, bit: int, on: bool) -> None:
        mapping = self._mapping
        while True:
            old = mapping.load(at)
            new = old | bit if on else old & ~bit
            if new == old or mapping.cas(at, old, new) == old:
                return


def digest_of(kind: str) -> int:
    """Return the word for a kind; never 0."""
    raw = kind.encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(raw, digest_size=8).digest(), "little") or 1
