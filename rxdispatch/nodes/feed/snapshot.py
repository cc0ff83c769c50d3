"""``Snapshot``: a fleet in a SQLite file that the processes of one host share (L2)."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, TypeVar

import attrs

from rxdispatch.errors import ConfigError
from rxdispatch.files.database_file import DatabaseFile
from rxdispatch.files.private_database import open_database
from rxdispatch.log import get_logger

__all__ = ["Snapshot", "Stored", "StoredRow"]

log = get_logger(__name__)

T = TypeVar("T")

_APPLICATION: Final = 0x52584446
_LAYOUT: Final = 1
_BUSY: Final = 0.5
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")

_BIRTH: Final = f"""
BEGIN EXCLUSIVE;
PRAGMA application_id = {_APPLICATION};
PRAGMA user_version = {_LAYOUT};
CREATE TABLE IF NOT EXISTS fleets (
  name TEXT PRIMARY KEY, epoch TEXT, seq INTEGER, proven REAL, boot TEXT
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS nodes (
  fleet TEXT, id TEXT, seq INTEGER, record BLOB, lapse REAL, PRIMARY KEY (fleet, id)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS by_seq ON nodes (fleet, seq);
COMMIT;
"""

_UPSERT: Final = """
INSERT INTO nodes VALUES (?, ?, ?, ?, ?)
ON CONFLICT (fleet, id) DO UPDATE
SET seq = excluded.seq, record = excluded.record, lapse = excluded.lapse
WHERE excluded.seq >= nodes.seq
"""


@attrs.frozen(slots=True)
class StoredRow:
    """
    A node in the snapshot.

    Attributes:
        id: The node's id.
        seq: The number of its last change.
        record: The packed node; empty if it was removed.
        remaining: Seconds until the node lapses; 0 or less once it has lapsed.
    """

    id: str
    seq: int
    record: bytes
    remaining: float


@attrs.frozen(slots=True)
class Stored:
    """
    The snapshot's data of one fleet.

    Attributes:
        epoch: The epoch of the registry's data.
        seq: The number up to which it is complete.
        age: Seconds since it was last saved; infinite if that was before the host booted.
        rows: The nodes that were asked for.
    """

    epoch: str
    seq: int
    age: float
    rows: list[StoredRow]


class Snapshot:
    """
    The nodes of one fleet in a file that several processes and several fleets may share.

    The process that holds a lock writes; the other processes of the host read. The kernel drops
    the lock when the process dies. Times are seconds since the host booted, a clock that all its
    processes share. Data from before the boot counts as lapsed, and so does all data on a system
    that cannot tell one boot from another, such as macOS.

    SQLite works in a thread of its own, so a slow disk blocks no event loop. If the file cannot
    be read or written, a warning is logged and the feed works without a snapshot.

    Args:
        path: The file, on a local disk; its directory must exist.
        name: Identifies the fleet in the file; must contain no secret.
    """

    def __init__(self, path: str | os.PathLike[str], name: str) -> None:
        self._path = Path(path)
        self._name = name
        self._boot = _boot_id()
        self._database = DatabaseFile(self._path, what="snapshot", label="snapshot")
        self._failing = False
        self._identity = 0

    # -- lifetime ----------------------------------------------------------------------------

    async def open(self) -> None:
        """
        Open the file, or create it.

        Raises:
            ConfigError: If it cannot be opened, or belongs to another application.
        """
        await self._database.open(self._open)

    async def close(self) -> None:
        """Close the file; the second call does nothing."""
        await self._database.close()

    def _open(self) -> None:
        if self._state() == "broken":
            # Only the writing process may reset it: with another version of this library, a process
            # may be using the file.
            if not self._database.locked():
                log.warning("snapshot_unusable", reason="it has another version, or is damaged")
                return
            log.warning("snapshot_reset", reason="it had another version, or was damaged")
            self._remove()
        self._connect()

    def _state(self) -> str:
        """
        Return ``ours``, or ``broken`` if the file is ours but unusable.

        It is opened through SQLite only: POSIX drops every lock that a process has on a file when
        the process closes any descriptor of that file.
        """
        try:
            with closing(open_database(self._path, what="snapshot", timeout=_BUSY)) as connection:
                application = connection.execute("PRAGMA application_id").fetchone()[0]
                tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
                if application != _APPLICATION and (application or tables):
                    raise ConfigError("snapshot must be a file of its own", str(self._path))
                layout = connection.execute("PRAGMA user_version").fetchone()[0]
                if not tables:
                    return "ours"
                sound = connection.execute("PRAGMA quick_check(1)").fetchone()[0] == "ok"
                return "ours" if sound and layout == _LAYOUT else "broken"
        except sqlite3.OperationalError:
            raise
        except sqlite3.DatabaseError as error:
            # If our own file is damaged beyond recognition, it must not be removed either.
            if "malformed" in str(error):
                return "broken"
            rule = f"snapshot must be a file of its own ({error})"
            raise ConfigError(rule, str(self._path)) from error

    def _connect(self) -> None:
        connection = self._database.connect(timeout=_BUSY)
        if not connection.execute("PRAGMA application_id").fetchone()[0]:
            # Before WAL is turned on, so that the header names the application from the start.
            connection.executescript(_BIRTH)
        connection.execute("PRAGMA journal_mode = WAL")
        # A power cut may lose the last writes; the server has them.
        connection.execute("PRAGMA synchronous = NORMAL")
        self._identity = self._path.lstat().st_ino

    def _ready(self) -> sqlite3.Connection | None:
        """Return the connection; None if there is none or the file was replaced."""
        if self._database.connection is not None:
            try:
                replaced = self._path.lstat().st_ino != self._identity
            except FileNotFoundError:
                replaced = True
            if replaced:
                self._database.disconnect()
                self._open()
                return None
        return self._database.connection

    def _remove(self) -> None:
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)

    # -- writing -----------------------------------------------------------------------------

    async def lead(self) -> bool:
        """Return whether this process writes; it takes the lock if no other process holds it."""
        return bool(await self._tried(self._database.locked, False))

    async def save(self, epoch: str, seq: int, rows: Sequence[StoredRow], *, full: bool) -> bool:
        """
        Save nodes, and record that the snapshot is complete up to *seq* as of now.

        Args:
            epoch: The epoch of the registry's data.
            seq: The number up to which the snapshot is complete with *rows*.
            rows: The nodes that have changed; rows older than the stored ones are ignored.
            full: Whether *rows* are the whole fleet and replace it; required for a new epoch.

        Returns:
            False if this process does not write, or the write failed; then the next save must be
            full.
        """

        def write() -> bool:
            return self._database.locked() and self._write(epoch, seq, rows, full=full)

        return bool(await self._tried(write, False))

    def _write(self, epoch: str, seq: int, rows: Sequence[StoredRow], *, full: bool) -> bool:
        connection = self._ready()
        if connection is None:
            return False
        now = _now()
        connection.execute("BEGIN IMMEDIATE")
        try:
            stored = connection.execute(
                "SELECT epoch, seq FROM fleets WHERE name = ?", (self._name,)
            ).fetchone()
            known, at = stored or ("", 0)
            same = known == epoch
            if (same and at > seq) or not (same or full):
                connection.execute("ROLLBACK")
                return same
            if full:
                connection.execute("DELETE FROM nodes WHERE fleet = ?", (self._name,))
            values = ((self._name, r.id, r.seq, r.record, now + r.remaining) for r in rows)
            connection.executemany(_UPSERT, values)
            connection.execute(
                "INSERT OR REPLACE INTO fleets VALUES (?, ?, ?, ?, ?)",
                (self._name, epoch, seq, now, self._boot),
            )
            connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise
        return True

    # -- reading -----------------------------------------------------------------------------

    async def load(self) -> Stored | None:
        """Return everything stored of the fleet; None if nothing is."""
        return await self._tried(lambda: self._read("", -1), None)

    async def since(self, epoch: str, seq: int) -> Stored | None:
        """Return the rows that changed after *seq*, or all rows if the epoch differs."""
        return await self._tried(lambda: self._read(epoch, seq), None)

    def _read(self, epoch: str, seq: int) -> Stored | None:
        connection = self._ready()
        if connection is None:
            return None
        connection.execute("BEGIN")
        try:
            found = connection.execute(
                "SELECT epoch, seq, proven, boot FROM fleets WHERE name = ?", (self._name,)
            ).fetchone()
            if found is None:
                return None
            after = seq if found[0] == epoch else -1
            rows = connection.execute(
                "SELECT id, seq, record, lapse FROM nodes WHERE fleet = ? AND seq > ?",
                (self._name, after),
            ).fetchall()
        finally:
            connection.execute("ROLLBACK")
        now = _now()
        same_boot = self._boot != "" and found[3] == self._boot and found[2] <= now
        return Stored(
            found[0],
            found[1],
            now - found[2] if same_boot else float("inf"),
            [
                StoredRow(name, number, record, lapse - now if same_boot else 0.0)
                for name, number, record, lapse in rows
            ],
        )

    # -- the thread --------------------------------------------------------------------------

    async def _tried(self, work: Callable[[], T], otherwise: T) -> T:
        """Run *work* in the thread; on failure return *otherwise*, and log the first of a row."""
        if not self._database.running:
            return otherwise
        try:
            result = await self._database.run(work)
        except (OSError, sqlite3.Error, ConfigError) as error:
            # A ConfigError means that the path now holds a file of another application.
            if not self._failing:
                log.warning("snapshot_failed", error=f"{type(error).__name__}: {error}")
            self._failing = True
            if "malformed" in str(error):
                await self._reset()
            return otherwise
        self._failing = False
        return result

    async def _reset(self) -> None:
        """Replace a damaged file by an empty one, unless another process holds the lock."""

        def reset() -> None:
            if self._database.connection is not None and self._database.locked():
                log.warning("snapshot_reset", reason="it is damaged")
                self._database.disconnect()
                self._remove()
                self._connect()

        if self._database.running:
            with suppress(OSError, sqlite3.Error):
                await self._database.run(reset)


def _now() -> float:
    """Return the seconds since the host booted, including suspension if the system counts it."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def _boot_id() -> str:
    try:
        return _BOOT.read_text("ascii").strip()
    except OSError:
        return ""
