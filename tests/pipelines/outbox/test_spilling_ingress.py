"""``SpillingIngress``: order, bounds, kills, disk failures, and its end."""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from reactivex import operators as rx
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.testing import Probe
from tests.failures.fleet import eventually
from tests.operators.flow.runs import to_list
from tests.pipelines.outbox.receiver import lines

ROOT = Path(__file__).parents[3]


def rows(path: Path) -> int:
    """Count the rows of the file."""
    with sqlite3.connect(path) as connection:
        found: int = connection.execute("SELECT count(*) FROM events").fetchone()[0]
    connection.close()
    return found


async def test_spilled_items_keep_their_order(tmp_path: Path) -> None:
    """Memory is bounded, and the file is empty at the end."""
    async with rxd.SpillingIngress[int](tmp_path / "spill", size=3) as ingress:
        for n in range(20):
            await ingress.put(n)
            assert ingress.waiting <= 3
        assert 17 == ingress.spilled
        assert not ingress.offer(20)
        assert not ingress.offer_threadsafe(20)
        joining = asyncio.create_task(ingress.wait_empty())
        log = Probe()
        ingress.subscribe(log)
        await joining
        assert list(range(20)) == log.notifications
        # Items now stay in memory again.
        assert ingress.offer(20)
        await ingress.put(21)
        ingress.close()
        assert [*range(22), "|"] == log.notifications
    assert 0 == rows(tmp_path / "spill")


async def test_producers_keep_their_order_through_ups_and_downs(tmp_path: Path) -> None:
    """The order holds whether items pass through memory or the disk."""
    rng = random.Random(5)
    async with rxd.SpillingIngress[list[int]](tmp_path / "spill", size=4) as ingress:

        async def work(item: list[int]) -> list[int]:
            if rng.random() < 0.02:
                await asyncio.sleep(0.005)
            return item

        async def produce(name: int) -> None:
            for n in range(200):
                await ingress.put([name, n])
                if rng.random() < 0.3:
                    await asyncio.sleep(0)

        running = asyncio.create_task(to_list(ingress.pipe(ops.map_async(work, max_concurrent=1))))
        await asyncio.gather(*(produce(name) for name in range(5)))
        ingress.close()
        got: list[Any] = await running
    assert 1000 == len(got)
    for name in range(5):
        assert list(range(200)) == [n for who, n in got if who == name]


async def test_the_disk_is_left_once_the_subscriber_keeps_up(tmp_path: Path) -> None:
    """Items pass through memory again, even if a producer never pauses."""
    async with rxd.SpillingIngress[int](tmp_path / "spill", size=10) as ingress:
        for n in range(50):
            await ingress.put(n)
        log = Probe()
        ingress.subscribe(log)
        for n in range(50, 2000):
            await ingress.put(n)
        assert 0 == ingress.spilled
        assert list(range(2000)) == log.notifications


async def test_the_disk_is_bounded_too(tmp_path: Path) -> None:
    """An item that does not fit raises; the items on disk stay."""
    async with rxd.SpillingIngress[int](tmp_path / "spill", size=1, max_items=3) as ingress:
        for n in range(4):
            await ingress.put(n)
        with pytest.raises(rxd.BufferOverflowError, match="at most 3 items"):
            await ingress.put(4)
        ingress.close()
        assert [0, 1, 2, 3] == await to_list(ingress)


async def test_items_on_disk_wait_for_the_next_process(tmp_path: Path) -> None:
    """Of the items that were read from disk, only those that were emitted are gone."""
    path = tmp_path / "spill"
    async with rxd.SpillingIngress[int](path, size=4) as ingress:
        for n in range(12):
            await ingress.put(n)
        # Four items from memory and three from disk are emitted; up to four more were read.
        assert list(range(7)) == await to_list(ingress.pipe(rx.take(7)))
        await eventually(lambda: ingress.waiting > 0)
    with pytest.raises(rxd.TaskRejectedError):
        ingress.offer(1)
    async with rxd.SpillingIngress[int](path, size=4) as ingress:
        assert 5 == ingress.spilled
        await ingress.put(12)
        ingress.close()
        assert list(range(7, 13)) == await to_list(ingress)
    assert 0 == rows(path)


async def test_leaving_ends_the_stream_after_the_items_in_memory(tmp_path: Path) -> None:
    """A slow subscriber gets these items and the completion."""
    gate = asyncio.Event()

    async def work(n: int) -> int:
        await gate.wait()
        return n

    async with rxd.SpillingIngress[int](tmp_path / "spill", size=2) as ingress:
        running = asyncio.create_task(to_list(ingress.pipe(ops.map_async(work, max_concurrent=1))))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for n in range(6):
            await ingress.put(n)
        waiting = asyncio.create_task(ingress.put(6))
        await asyncio.sleep(0)
    await waiting
    gate.set()
    assert [0, 1, 2] == await running
    assert 4 == rows(tmp_path / "spill")


async def test_a_put_that_is_cancelled_before_its_turn_writes_nothing(tmp_path: Path) -> None:
    """``wait_empty`` does not wait for it either."""
    async with rxd.SpillingIngress[int](tmp_path / "spill", size=1) as ingress:
        await ingress.put(0)
        put = asyncio.create_task(ingress.put(1))
        await asyncio.sleep(0)
        put.cancel()
        await asyncio.gather(put, return_exceptions=True)
        await eventually(lambda: ingress.spilled == 0)
        log = Probe()
        ingress.subscribe(log)
        await ingress.wait_empty()
        assert [0] == log.notifications


async def test_a_disk_failure_is_logged_and_waited_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Puts that cannot be written raise; items on disk are emitted when they can be read."""
    async with rxd.SpillingIngress[int](tmp_path / "spill", size=1) as ingress:
        for n in range(3):
            await ingress.put(n)
        broken = sqlite3.connect(tmp_path / "spill", isolation_level=None, timeout=0)
        connection: Any = ingress._file._database.connection
        await ingress._file.in_thread(lambda: connection.execute("PRAGMA busy_timeout = 0"))
        broken.execute("BEGIN IMMEDIATE")
        with capture_logs() as logs:
            with pytest.raises(rxd.StoreUnavailableError, match="locked"):
                await ingress.put(9)
            log = Probe()
            ingress.subscribe(log)
            await eventually(lambda: bool(logs))
            broken.execute("ROLLBACK")
            broken.close()
            await ingress.wait_empty()
            await eventually(lambda: len(logs) == 2)
        assert [0, 1, 2] == log.notifications
        assert ["spill_waits", "spill_going_on"] == [entry["event"] for entry in logs]


async def test_killed_after_put_has_returned(tmp_path: Path) -> None:
    """Written items are emitted in order, whenever the process is killed."""
    rng = random.Random(3)
    for turn in range(4):
        path, journal = tmp_path / f"spill{turn}", str(tmp_path / f"journal{turn}")
        command = [
            sys.executable,
            "-m",
            "tests.pipelines.outbox.spilling_worker",
            str(path),
            journal,
        ]
        process = subprocess.Popen(command, cwd=ROOT)
        try:
            await eventually(lambda: lines(journal) >= rng.randrange(1, 30), 30)  # noqa: B023
        finally:
            process.kill()
            process.wait()
        known = 10 * lines(journal)
        async with rxd.SpillingIngress[int](path, size=16) as ingress:
            ingress.close()
            got = await to_list(ingress)
        # The item in memory, -1, is lost; some of the last ten may have been written.
        assert list(range(len(got))) == got
        assert known <= len(got) <= known + 10


async def test_one_process_and_one_use(tmp_path: Path) -> None:
    """A second process, a second entry and foreign files are refused."""
    path = tmp_path / "spill"
    closed = rxd.SpillingIngress[int](path)
    with pytest.raises(rxd.ConfigError, match="must be open"):
        await closed.put(1)
    async with closed:
        with pytest.raises(rxd.ConfigError, match="spill file must be used by one process"):
            async with rxd.SpillingIngress[int](path):
                pass
    with pytest.raises(rxd.ConfigError, match="entered once"):
        await closed.__aenter__()
    (tmp_path / "text").write_text("no database, but long enough to look at" * 100)
    with pytest.raises(rxd.ConfigError, match="spill file must be"):
        async with rxd.SpillingIngress[int](tmp_path / "text"):
            pass
    for arguments in ({"size": 0}, {"max_items": 0}, {"admit": 1}):
        bad: Any = arguments
        with pytest.raises(rxd.ConfigError):
            rxd.SpillingIngress[int](path, **bad)


async def test_an_item_that_cannot_be_written_raises(tmp_path: Path) -> None:
    """The item is not counted."""
    async with rxd.SpillingIngress[Any](tmp_path / "spill", size=1) as ingress:
        await ingress.put(object())
        with pytest.raises(rxd.CodecError):
            await ingress.put(object())
        assert 0 == ingress.spilled
