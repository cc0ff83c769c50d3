"""``Snapshot``: a fleet on disk, with restarts, several processes and damaged files."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from rxdispatch.errors import ConfigError
from rxdispatch.nodes.feed.snapshot import Snapshot, Stored, StoredRow


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of the snapshot."""
    return tmp_path / "fleet.db"


@asynccontextmanager
async def opened(path: Path, name: str = "redis://here rxd") -> AsyncGenerator[Snapshot]:
    """Open a snapshot for a block."""
    snapshot = Snapshot(path, name)
    await snapshot.open()
    try:
        yield snapshot
    finally:
        await snapshot.close()


def rows(*numbers: int, record: bytes = b"r", remaining: float = 30.0) -> list[StoredRow]:
    """Return one row per number; the number is its id and its change."""
    return [StoredRow(f"n{number}", number, record, remaining) for number in numbers]


def numbers(stored: Stored | None) -> list[int]:
    """Return the change numbers of the rows."""
    assert stored is not None
    return sorted(row.seq for row in stored.rows)


async def test_what_is_saved_is_loaded(path: Path) -> None:
    """This handle and a later one load what was saved, with the remaining ttl."""
    async with opened(path) as snapshot:
        assert await snapshot.load() is None
        assert await snapshot.save("e", 3, rows(1, 3), full=True)
        first = await snapshot.load()
    async with opened(path) as snapshot:
        second = await snapshot.load()
    for stored in (first, second):
        assert stored is not None
        assert ("e", 3) == (stored.epoch, stored.seq)
        assert [1, 3] == numbers(stored)
        assert all(0 < row.remaining <= 30 for row in stored.rows)
        assert 0 <= stored.age < 60


async def test_only_what_changed_since(path: Path) -> None:
    """``since`` includes removals, and returns all rows if the epoch differs."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 3, rows(1, 2, 3), full=True)
        await snapshot.save("e", 5, [*rows(4), StoredRow("n1", 5, b"", 0.0)], full=False)
        stored = await snapshot.since("e", 3)
        assert stored is not None
        assert {("n4", b"r"), ("n1", b"")} == {(row.id, row.record) for row in stored.rows}
        assert [2, 3, 4, 5] == numbers(await snapshot.since("other", 3))


async def test_older_rows_change_nothing(path: Path) -> None:
    """Neither older rows nor an older fleet is saved; a full save of a new epoch replaces all."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 9, [StoredRow("a", 9, b"new", 1.0)], full=True)
        assert await snapshot.save("e", 10, [StoredRow("a", 8, b"old", 1.0)], full=False)
        assert await snapshot.save("e", 7, rows(7), full=True)
        stored = await snapshot.load()
        assert stored is not None
        assert (10, [b"new"]) == (stored.seq, [row.record for row in stored.rows])
        assert await snapshot.save("f", 1, rows(1), full=True)
        assert [1] == numbers(await snapshot.load())


async def test_fleets_share_a_file(path: Path) -> None:
    """Two fleets in one file do not see each other."""
    async with opened(path, "one") as one:
        await one.save("e", 1, rows(1), full=True)
    async with opened(path, "two") as two:
        assert await two.load() is None
        await two.save("e", 2, rows(2), full=True)
    async with opened(path, "one") as one:
        assert [1] == numbers(await one.load())


async def test_one_process_writes(path: Path) -> None:
    """Another handle may write after the first one has closed."""
    async with opened(path) as first, opened(path) as second:
        assert await first.lead()
        assert not await second.lead()
        assert not await second.save("e", 1, rows(1), full=True)
        assert await second.load() is None
        await first.save("e", 1, rows(1), full=True)
        assert [1] == numbers(await second.load())
        await first.close()
        assert await second.save("e", 2, rows(2), full=False)


WRITER = """
import asyncio, sys
from rxdispatch.nodes.feed.snapshot import Snapshot, StoredRow
async def main():
    snapshot = Snapshot(sys.argv[1], "redis://here rxd")
    await snapshot.open()
    assert await snapshot.lead()
    print("leads", flush=True)
    number, first = int(sys.argv[2]), True
    while True:
        number += 1
        rows = [StoredRow(f"n{i}", number, b"x" * 200, 30.0) for i in range(200)]
        assert await snapshot.save("e", number, rows, full=number % 3 == 0 or first)
        first = False
asyncio.run(main())
"""


async def test_a_killed_writer(path: Path) -> None:
    """A killed writer leaves an intact file, and the next process may write."""
    rng = random.Random(7)
    last = 0
    for _ in range(5):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(last)], stdout=subprocess.PIPE
        )
        with process:
            try:
                assert process.stdout is not None
                assert b"leads\n" == await asyncio.to_thread(process.stdout.readline)
                async with opened(path) as reader:
                    assert not await reader.lead()
                    await asyncio.sleep(rng.uniform(0.0, 0.1))
                    process.send_signal(signal.SIGKILL)
                    await asyncio.to_thread(process.wait)
                    assert await reader.lead()
                    stored = await reader.load()
            finally:
                process.kill()
        if stored is not None:
            assert {stored.seq} == {row.seq for row in stored.rows}
            assert last <= stored.seq
            last = stored.seq
    assert last > 0


async def test_a_damaged_file_is_replaced(path: Path) -> None:
    """A damaged snapshot is replaced, with a log entry."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 1, rows(*range(500), record=b"x" * 300), full=True)
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(30_000))
    with capture_logs() as logs:
        async with opened(path) as snapshot:
            assert await snapshot.load() is None
            assert await snapshot.save("e", 2, rows(2), full=True)
            assert [2] == numbers(await snapshot.load())
    assert ["snapshot_reset"] == [entry["event"] for entry in logs]


async def test_a_truncated_file_is_replaced(path: Path) -> None:
    """Truncation is treated like any other damage."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 1, rows(*range(500), record=b"x" * 300), full=True)
    os.truncate(path, path.stat().st_size // 2)
    async with opened(path) as snapshot:
        assert await snapshot.save("e", 2, rows(2), full=True)
        assert [2] == numbers(await snapshot.load())


async def test_another_layout_is_replaced(path: Path) -> None:
    """A snapshot of another version is replaced, as the server has the data."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 1, rows(1), full=True)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    async with opened(path) as snapshot:
        assert await snapshot.load() is None


@pytest.mark.parametrize("content", [b"important", b"SQLite format 3\0" + b"\0" * 200])
async def test_a_foreign_file(path: Path, content: bytes) -> None:
    """A foreign file is refused and not changed."""
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="snapshot must be a file of its own"):
        async with opened(path):
            pass
    assert content == path.read_bytes()


async def test_a_foreign_database(path: Path) -> None:
    """A foreign database is refused and not changed."""
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE precious (x)")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="of its own"):
        async with opened(path):
            pass
    assert before == path.read_bytes()


async def test_two_handles_of_one_process(path: Path) -> None:
    """Closing the second handle leaves the lock and the log of the first intact."""
    code = f"import sqlite3; sqlite3.connect({str(path)!r}).execute('SELECT * FROM nodes').close()"
    async with opened(path) as first:
        await first.save("e", 1, rows(1), full=True)
        async with opened(path, "other"):
            pass
        await asyncio.to_thread(subprocess.run, [sys.executable, "-c", code], check=True)
        await first.save("e", 2, rows(2), full=False)
        async with opened(path) as second:
            assert [1, 2] == numbers(await second.load())


async def test_the_file_is_removed_under_it(path: Path) -> None:
    """The next save asks for a full one, which creates a new file."""
    async with opened(path) as snapshot, opened(path) as reader:
        await snapshot.save("e", 1, rows(1), full=True)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink()
        assert not await snapshot.save("e", 2, rows(2), full=False)
        assert await snapshot.save("e", 3, rows(3), full=True)
        assert await reader.load() is None
        assert [3] == numbers(await reader.load())


async def test_of_another_epoch_only_as_a_whole(path: Path) -> None:
    """A partial save of another epoch is refused, as numbers of two epochs do not mix."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 9, rows(9), full=True)
        assert not await snapshot.save("f", 1, rows(1), full=False)
        assert [9] == numbers(await snapshot.load())


async def test_another_layout_in_use(path: Path) -> None:
    """The process that writes it keeps it, and this process works without a snapshot."""
    async with opened(path) as writer:
        await writer.save("e", 1, rows(1), full=True)
        with sqlite3.connect(path) as connection:
            connection.execute("PRAGMA user_version = 99")
        connection.close()
        with capture_logs() as logs:
            async with opened(path) as snapshot:
                assert await snapshot.load() is None
                assert not await snapshot.save("e", 2, rows(2), full=True)
        assert ["snapshot_unusable"] == [entry["event"] for entry in logs]
        assert [1] == numbers(await writer.load())


async def test_no_such_directory(tmp_path: Path) -> None:
    """The error names the rule."""
    with pytest.raises(ConfigError, match="snapshot must be a file that can be written"):
        async with opened(tmp_path / "missing" / "fleet.db"):
            pass


async def test_a_disk_that_fails(path: Path) -> None:
    """The failure is logged once; then there is no snapshot, and no error."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 1, rows(1), full=True)
        connection = sqlite3.connect(path, isolation_level=None)
        connection.execute("BEGIN EXCLUSIVE")
        with capture_logs() as logs:
            assert not await snapshot.save("e", 2, rows(2), full=False)
            assert not await snapshot.save("e", 3, rows(3), full=False)
        connection.execute("ROLLBACK")
        connection.close()
        assert await snapshot.save("e", 4, rows(4), full=False)
        assert [1, 4] == numbers(await snapshot.load())
    assert ["snapshot_failed"] == [entry["event"] for entry in logs]


async def test_after_a_reboot(path: Path) -> None:
    """After a reboot the age of the snapshot is unknown."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 1, rows(1), full=True)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE fleets SET boot = 'another'")
    connection.close()
    async with opened(path) as snapshot:
        stored = await snapshot.load()
    assert stored is not None
    assert (math.inf, [0.0]) == (stored.age, [row.remaining for row in stored.rows])


async def test_cancelled_while_it_saves(path: Path) -> None:
    """The transaction ends in its thread, by a commit or a rollback."""
    many: Sequence[StoredRow] = rows(*range(5000))
    async with opened(path) as snapshot:
        await snapshot.save("e", 1, [], full=True)
        for delay in (0.0, 0.001, 0.01):
            task = asyncio.create_task(snapshot.save("e", 5000, many, full=True))
            await asyncio.sleep(delay)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert await snapshot.save("e", 5001, [], full=False)
            stored = await snapshot.load()
            assert stored is not None
            assert len(stored.rows) in (0, 5000)


async def test_nothing_is_left_behind(path: Path) -> None:
    """No thread and no descriptor remains; closing twice does no harm."""
    before = len(tuple(Path("/proc/self/fd").iterdir()))
    snapshot = Snapshot(path, "x")
    await snapshot.close()
    await snapshot.open()
    await snapshot.save("e", 1, rows(1), full=True)
    await snapshot.close()
    await snapshot.close()
    assert not await snapshot.save("e", 2, rows(2), full=False)
    deadline = time.monotonic() + 5
    extra = threading.enumerate()
    while time.monotonic() < deadline:
        # The loop's default pool, which the test used to wait, keeps a thread.
        extra = [t for t in threading.enumerate() if "snapshot" in t.name]
        if not extra:
            break
    assert [] == extra
    assert before + 1 >= len(tuple(Path("/proc/self/fd").iterdir()))


async def test_only_the_owner_may_read_it(path: Path) -> None:
    """Labels and states may be confidential."""
    async with opened(path):
        assert 0o600 == path.stat().st_mode & 0o777


async def test_a_planted_file_is_refused(path: Path) -> None:
    """A link is refused, and so is a snapshot with a view in place of the table of nodes."""
    target = path.with_name("target")
    path.symlink_to(target)
    with pytest.raises(ConfigError, match="snapshot must not be a symbolic link"):
        async with opened(path):
            pass
    assert not target.exists()
    path.unlink()
    async with opened(path) as snapshot:
        await snapshot.save("e", 1, rows(1), full=True)
    with sqlite3.connect(path) as connection:
        connection.execute("DROP TABLE nodes")
        connection.execute("CREATE VIEW nodes AS SELECT 1")
    connection.close()
    with pytest.raises(ConfigError, match="snapshot must hold neither triggers nor views"):
        async with opened(path):
            pass


async def test_a_file_that_is_exchanged_under_it(path: Path) -> None:
    """A link in place of the file is logged once; then there is no snapshot, and no error."""
    async with opened(path) as snapshot:
        await snapshot.save("e", 1, rows(1), full=True)
        path.rename(path.with_name("moved"))
        path.symlink_to(path.with_name("moved"))
        with capture_logs() as logs:
            assert not await snapshot.save("e", 2, rows(2), full=False)
            assert await snapshot.load() is None
    assert ["snapshot_failed"] == [entry["event"] for entry in logs]
