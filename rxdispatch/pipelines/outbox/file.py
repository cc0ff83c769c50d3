"""
``OutboxFile``: stores the events of an outbox in a SQLite file.

``add``, ``first`` and ``sent`` must be called through ``in_thread``, which runs them in the file's
own thread, one after the other. Each is one transaction. A lock on a second file keeps other
processes out; the kernel releases it when the process ends.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import attrs

from rxdispatch.boards.task_codec import NewTask, TaskCodec, id_bytes, id_text
from rxdispatch.errors import ConfigError
from rxdispatch.files.database_file import DatabaseFile
from rxdispatch.files.lock import FileLock
from rxdispatch.pipelines.outbox.clock import ClockRow, OutboxClock
from rxdispatch.pipelines.outbox.events import OutboxEvent

__all__ = ["Limits", "OutboxFile"]

T = TypeVar("T")

_APPLICATION: Final = 0x5258444F
_LAYOUT: Final = 2

# AUTOINCREMENT never reuses a number, even after the table was empty.
_BIRTH: Final = f"""
BEGIN EXCLUSIVE;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_LAYOUT};
CREATE TABLE events (
  seq INTEGER PRIMARY KEY AUTOINCREMENT, id BLOB UNIQUE NOT NULL, at REAL, lived REAL, record BLOB
);
CREATE TABLE clock (boot TEXT, steady REAL, wall REAL, lived REAL);
INSERT INTO clock VALUES ('', 0, 0, 0);
COMMIT;
"""  # noqa: S608 - of constants

_CLOCK: Final = "UPDATE clock SET boot = ?, steady = ?, wall = ?, lived = ?"
_UP_TO: Final = "SELECT seq, length(record) FROM events WHERE seq <= ?"
# Numbers and times both grow, so the first event is the oldest: if it is young enough, all are.
_OLDEST: Final = "SELECT lived FROM events WHERE seq > ? ORDER BY seq LIMIT 1"
_OLD: Final = (
    "SELECT seq, length(record) FROM (SELECT seq, record, lived FROM events WHERE seq > ?"
    " ORDER BY seq LIMIT 256) WHERE lived < ?"
)
_NEXT: Final = "SELECT seq, length(record) FROM events WHERE seq > ? ORDER BY seq LIMIT 1"


@attrs.frozen(slots=True)
class Limits:
    """The limits of an outbox; with ``evict`` the oldest events make room for new ones."""

    size: int
    bytes: int | None
    age: float | None
    evict: bool


@attrs.define(slots=True)
class _Totals:
    """Counts of the events in the file, and of events dropped to make room or for their age."""

    count: int = 0
    bytes: int = 0
    oldest: float | None = None
    evicted: int = 0
    expired: int = 0


class OutboxFile:
    """
    A file of events, used by one process at a time.

    Args:
        path: The file, on a local disk; its directory must exist.
        limits: Its limits.
        what: Its name in errors.
        clock: Measures the age of events.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        what: str = "outbox",
        clock: OutboxClock | None = None,
    ) -> None:
        self._limits = limits
        self._clock = clock or OutboxClock()
        self._codec = TaskCodec[Any]()
        self._database = DatabaseFile(path, what=what, label="outbox")
        self._in_flight = 0  # events up to this number are being sent
        #: The counts after the last committed transaction.
        self.totals = _Totals()

    # -- lifetime ----------------------------------------------------------------------------

    async def open(self) -> None:
        """
        Open the file, or create it.

        Raises:
            ConfigError: If another process uses it, it is not such a file, or it cannot be written.
        """
        await self._database.open(self._open)

    async def close(self) -> None:
        """Close the file after the work in progress; a second call does nothing."""
        await self._database.close()

    async def in_thread(self, work: Callable[[], T]) -> T:
        """Run *work* in the file's thread; once begun, it completes, even if this is cancelled."""
        return await self._database.run(work)

    def _open(self) -> None:
        database = self._database
        if not database.locked():
            holder = FileLock.holder(database.lock_path)
            by = "" if holder is None else f"; process {holder} uses it"
            rule = f"{database.what} must be used by one process at a time{by}"
            raise ConfigError(rule, str(database.path))
        connection = database.connect()
        application, layout, tables = (
            connection.execute(question).fetchone()[0]
            for question in (
                "PRAGMA application_id",
                "PRAGMA user_version",
                "SELECT count(*) FROM sqlite_master",
            )
        )
        if not tables and not application:
            connection.executescript(_BIRTH)
        elif (application, layout) != (_APPLICATION, _LAYOUT):
            raise ConfigError(f"{database.what} must be a file of its own", str(database.path))
        connection.execute("PRAGMA journal_mode = WAL")
        # An acknowledged event must survive a power cut.
        connection.execute("PRAGMA synchronous = FULL")
        stored = connection.execute("SELECT boot, steady, wall, lived FROM clock").fetchone()
        self._clock.resume(ClockRow(*stored))
        count, size = connection.execute(
            "SELECT count(*), ifnull(sum(length(record)), 0) FROM events"
        ).fetchone()
        self.totals = _Totals(count, size, self._oldest())

    def age(self) -> float:
        """Return how many seconds the oldest event has waited; 0 if none waits."""
        oldest = self.totals.oldest
        return 0.0 if oldest is None else max(0.0, self._clock.now() - oldest)

    # -- transactions ------------------------------------------------------------------------

    def add(self, entries: Sequence[NewTask]) -> list[int | None]:
        """Add events; return the number of each, or None if there is no room."""
        return self._transaction(lambda totals: [self._add(entry, totals) for entry in entries])

    def first(self, count: int, after: int = 0) -> list[OutboxEvent]:
        """Return the oldest events *after* a number; none is dropped before :meth:`sent`."""
        self._in_flight = 0
        rows = self._transaction(
            lambda _: self._do(
                "SELECT seq, id, record, at FROM events WHERE seq > ? ORDER BY seq LIMIT ?",
                after,
                count,
            ).fetchall()
        )
        self._in_flight = rows[-1][0] if rows else 0
        found: list[OutboxEvent] = []
        for seq, key, record, at in rows:
            name = id_text(key)
            found.append(OutboxEvent(seq, name, self._codec.decode(name, record).payload, at))
        return found

    def sent(self, last: int) -> int:
        """Remove the events up to number *last*; return how many."""
        removed = self._transaction(lambda totals: self._remove(_UP_TO, totals, last))
        self._in_flight = 0
        return removed

    def _transaction(self, work: Callable[[_Totals], T]) -> T:
        totals = attrs.evolve(self.totals)
        self._do("BEGIN IMMEDIATE")
        try:
            if self._limits.age is not None:
                self._expire(totals, self._clock.now() - self._limits.age)
            result = work(totals)
            totals.oldest = self._oldest()
            if totals != self.totals:
                self._do(_CLOCK, *self._clock.row())
            self._do("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self._do("ROLLBACK")
            raise
        self.totals = totals
        return result

    def _expire(self, totals: _Totals, young: float) -> None:
        while (first := self._do(_OLDEST, self._in_flight).fetchone()) and first[0] < young:
            totals.expired += self._remove(_OLD, totals, self._in_flight, young)

    def _add(self, entry: NewTask, totals: _Totals) -> int | None:
        key, size, limits = id_bytes(entry.id), len(entry.record), self._limits
        known = self._do("SELECT seq FROM events WHERE id = ?", key).fetchone()
        if known is not None:
            return int(known[0])
        room = limits.bytes
        while totals.count >= limits.size or (room is not None and totals.bytes + size > room):
            if not limits.evict or (room is not None and size > room):
                return None
            dropped = self._remove(_NEXT, totals, self._in_flight)
            if not dropped:
                # All events are being sent, so there is room soon. Exceed the limit until then.
                break
            totals.evicted += dropped
        cursor = self._do(
            "INSERT INTO events (id, at, lived, record) VALUES (?, ?, ?, ?)",
            key,
            time.time(),
            self._clock.now(),
            entry.record,
        )
        totals.count += 1
        totals.bytes += size
        return cursor.lastrowid

    def _remove(self, which: str, totals: _Totals, *values: float) -> int:
        """Remove the events that *which* selects, by number and size; return how many."""
        rows = self._do(which, *values).fetchall()
        assert self._database.connection is not None
        self._database.connection.executemany(
            "DELETE FROM events WHERE seq = ?", [(seq,) for seq, _ in rows]
        )
        totals.count -= len(rows)
        totals.bytes -= sum(size for _, size in rows)
        return len(rows)

    def _oldest(self) -> float | None:
        found = self._do(_OLDEST, 0).fetchone()
        return None if found is None else float(found[0])

    def _do(self, statement: str, *values: Any) -> sqlite3.Cursor:
        assert self._database.connection is not None
        return self._database.connection.execute(statement, values)
