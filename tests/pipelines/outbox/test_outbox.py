"""The outbox: order, at least once, limits, kills, and access to the file."""

from __future__ import annotations

import asyncio
import os
import random
import sqlite3
import subprocess
import sys
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch.store.url import parse_url
from tests.failures.fleet import eventually
from tests.pipelines.outbox.receiver import Receiver, lines, send_to
from tests.proxy import Proxy

ROOT = Path(__file__).parents[3]
QUICK = rxd.Backoff(first=0.001, maximum=0.01)


class PanicError(BaseException):
    """An error that bindings to other languages raise."""


class Sink:
    """A receiver that can be unavailable."""

    def __init__(self, *, away: bool = False) -> None:
        self.batches: list[list[rxd.OutboxEvent]] = []
        self.away = away

    @property
    def events(self) -> list[Any]:
        """Return the events that were sent."""
        return [event.event for batch in self.batches for event in batch]

    async def __call__(self, events: list[rxd.OutboxEvent]) -> None:
        """Take a batch."""
        await asyncio.sleep(0)
        if self.away:
            raise ConnectionError("away")
        self.batches.append(events)


async def test_sent_in_order_with_ids_and_numbers(tmp_path: Path) -> None:
    """Batches contain the waiting events, the oldest first, and none remains."""
    sink = Sink()
    async with rxd.Outbox(tmp_path / "box", sink, batch=7) as box:
        numbers = await asyncio.gather(*(box.put({"n": n}) for n in range(50)))
        await box.flush()
        stats = box.stats
    assert [{"n": n} for n in range(50)] == sink.events
    assert max(len(batch) for batch in sink.batches) <= 7
    sent = [event for batch in sink.batches for event in batch]
    assert list(numbers) == [event.seq for event in sent] == list(range(1, 51))
    assert 50 == len({event.id for event in sent})
    assert rxd.OutboxStats(0, 0, 50, 0, 0, 0.0) == stats


async def test_the_next_process_sends_the_waiting_events(tmp_path: Path) -> None:
    """Leaving keeps them, numbers go on, and an id that waits is not written again."""
    path = tmp_path / "box"
    sink = Sink(away=True)
    async with rxd.Outbox(path, sink, backoff=QUICK) as box:
        assert [1, 2, 1] == [await box.put(n % 2, id=f"i{n % 2}") for n in range(3)]
        assert (2, 0) == (box.stats.waiting, box.stats.sent)
        assert box.stats.bytes > 0
        assert box.stats.oldest_age >= 0
    sink.away = False
    async with rxd.Outbox(path, sink) as box:
        await box.flush()
        # The file is empty, and still no number comes twice.
        assert 3 == await box.put("c", id="i0")
        await box.flush()
    assert [0, 1, "c"] == sink.events


async def test_failures_are_logged_once_and_waited_out(tmp_path: Path) -> None:
    """The same events are sent again, even if ``send`` itself raises CancelledError."""
    tries: list[list[Any]] = []

    async def send(events: list[rxd.OutboxEvent]) -> None:
        tries.append([event.event for event in events])
        if len(tries) == 1:
            raise asyncio.CancelledError
        if len(tries) < 4:
            raise OSError("away")

    with capture_logs() as logs:
        async with rxd.Outbox(tmp_path / "box", send, backoff=QUICK) as box:
            await box.put("x")
            await box.flush()
            assert (1, 3) == (box.stats.sent, box.stats.failures)
    assert [["x"]] * 4 == tries
    assert ["outbox_waits", "outbox_going_on"] == [entry["event"] for entry in logs]


async def test_refuses_events_that_do_not_fit(tmp_path: Path) -> None:
    """An event may be one too many or too large; stored events stay."""
    sink = Sink(away=True)
    async with rxd.Outbox(tmp_path / "a", sink, max_items=3, backoff=QUICK) as box:
        answers = await asyncio.gather(*(box.put(n) for n in range(5)), return_exceptions=True)
        assert [1, 2, 3] == answers[:3]
        assert all(isinstance(answer, rxd.BufferOverflowError) for answer in answers[3:])
        assert 3 == box.stats.waiting
        sink.away = False
        await box.flush()
        await box.put("later")
        await box.flush()
    assert [0, 1, 2, "later"] == sink.events
    async with rxd.Outbox(tmp_path / "b", Sink(away=True), max_bytes=100, backoff=QUICK) as box:
        await box.put("x" * 60)
        with pytest.raises(rxd.BufferOverflowError):
            await box.put("x" * 60)


async def test_drops_the_oldest_but_none_that_is_being_sent(tmp_path: Path) -> None:
    """The newest stay, and drops are counted and logged."""
    started, go = asyncio.Event(), asyncio.Event()
    got: list[Any] = []

    async def send(events: list[rxd.OutboxEvent]) -> None:
        started.set()
        await go.wait()
        got.extend(event.event for event in events)

    with capture_logs() as logs:
        async with rxd.Outbox(
            tmp_path / "box", send, max_items=4, max_bytes=1000, overflow="drop_oldest", batch=2
        ) as box:
            await box.put(0)
            await started.wait()
            for n in range(1, 10):
                await box.put(n)
            assert (4, 6) == (box.stats.waiting, box.stats.dropped)
            with pytest.raises(rxd.BufferOverflowError):
                await box.put("x" * 2000)
            go.set()
            await box.flush()
            assert 4 == box.stats.sent
    assert [0, 7, 8, 9] == got
    told = [(entry["reason"], entry["items"]) for entry in logs]
    assert [("max_items", 6)] == told


async def test_exceeds_its_limit_while_all_events_are_being_sent(tmp_path: Path) -> None:
    """If no event may be dropped, ``drop_oldest`` exceeds the limit by at most one batch."""
    started, go = asyncio.Event(), asyncio.Event()
    got: list[Any] = []

    async def send(events: list[rxd.OutboxEvent]) -> None:
        started.set()
        await go.wait()
        got.extend(event.event for event in events)

    async with rxd.Outbox(tmp_path / "box", send, max_items=1, overflow="drop_oldest") as box:
        await box.put(0)
        await started.wait()
        await box.put(1)
        await box.put(2)
        go.set()
        await box.flush()
        assert 1 == box.stats.dropped
    assert [0, 2] == got


async def test_old_events_are_dropped(tmp_path: Path) -> None:
    """Events past ``max_age`` are not sent, whatever the overflow policy is."""
    path = tmp_path / "box"
    sink = Sink(away=True)
    async with rxd.Outbox(path, sink, backoff=QUICK) as box:
        await box.put("old")
        await box.put("young")
    with sqlite3.connect(path) as database:
        database.execute("UPDATE events SET lived = lived - 3600 WHERE seq = 1")
    database.close()
    sink.away = False
    with capture_logs() as logs:
        async with rxd.Outbox(path, sink, max_age=1800) as box:
            await box.flush()
            assert (1, 1) == (box.stats.dropped, box.stats.sent)
    assert ["young"] == sink.events
    assert [("max_age", 1)] == [(entry["reason"], entry["items"]) for entry in logs]


async def test_steps_of_the_clock_drop_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A device boots in 1970, and later gets the time from the network."""
    path, now = tmp_path / "box", 100.0
    monkeypatch.setattr("rxdispatch.pipelines.outbox.file.time.time", lambda: now)
    sink = Sink(away=True)
    async with rxd.Outbox(path, sink, max_age=60, backoff=QUICK) as box:
        await box.put("before")
        now = 1.8e9
        await box.put("after")
        assert box.stats.oldest_age < 30
        assert (2, 0) == (box.stats.waiting, box.stats.dropped)
    sink.away = False
    async with rxd.Outbox(path, sink, max_age=60) as box:
        await box.flush()
    assert ["before", "after"] == sink.events


async def test_the_cost_of_max_age_does_not_grow(tmp_path: Path) -> None:
    """The database looks only at the oldest event, as its number of steps shows."""

    async def steps(box: rxd.Outbox) -> int:
        found: list[int] = []
        connection = box._file._database.connection
        assert connection is not None
        connection.set_progress_handler(lambda: found.append(1), 1)
        await box.put({"d": "y"})
        connection.set_progress_handler(None, 1)
        return len(found)

    gate = asyncio.Event()

    async def send(events: list[rxd.OutboxEvent]) -> None:
        await gate.wait()

    async with rxd.Outbox(tmp_path / "box", send, max_age=3600.0) as box:
        await asyncio.gather(*(box.put({"d": "x"}) for _ in range(20)))
        few = await steps(box)
        await asyncio.gather(*(box.put({"d": "x"}) for _ in range(3000)))
        many = await steps(box)
        assert many < 2 * few
        gate.set()
        await box.flush()


async def test_one_process_at_a_time(tmp_path: Path) -> None:
    """Another process gets an error, and can open the file later."""
    sink = Sink()
    async with rxd.Outbox(tmp_path / "box", sink):
        rule = f"one process at a time; process {os.getpid()} uses it"
        with pytest.raises(rxd.ConfigError, match=rule):
            await rxd.Outbox(tmp_path / "box", sink).__aenter__()
    async with rxd.Outbox(tmp_path / "box", sink) as box:
        await box.put(1)


async def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    """A foreign database, a text, a directory and a missing directory raise ConfigError."""
    with sqlite3.connect(tmp_path / "db") as database:
        database.execute("CREATE TABLE t (x)")
    database.close()
    (tmp_path / "text").write_text("not a database, and longer than nothing at all" * 100)
    (tmp_path / "dir").mkdir()
    for name in ("db", "text", "dir", "none/box"):
        with pytest.raises(rxd.ConfigError, match=r"outbox must be a (regular )?file"):
            await rxd.Outbox(tmp_path / name, Sink()).__aenter__()
    assert (tmp_path / "text").read_text().startswith("not a database")


async def test_a_planted_file_is_refused(tmp_path: Path) -> None:
    """A link, and an outbox with a trigger that would copy its events."""
    path = tmp_path / "box"
    path.symlink_to(tmp_path / "target")
    with pytest.raises(rxd.ConfigError, match="outbox must not be a symbolic link"):
        async with rxd.Outbox(path, Sink()):
            pass
    assert not (tmp_path / "target").exists()
    path.unlink()
    async with rxd.Outbox(path, Sink()):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE copies (x)")
        copy = "INSERT INTO copies VALUES (new.record)"
        connection.execute(f"CREATE TRIGGER spy AFTER INSERT ON events BEGIN {copy}; END")
    connection.close()
    with pytest.raises(rxd.ConfigError, match="outbox must hold neither triggers nor views"):
        async with rxd.Outbox(path, Sink()):
            pass


async def test_a_planted_lock_is_refused(tmp_path: Path) -> None:
    """The lock may be a link, which must not create a file elsewhere."""
    (tmp_path / "box.lock").symlink_to(tmp_path / "target")
    with pytest.raises(rxd.ConfigError, match="the lock file must not be a symbolic link"):
        async with rxd.Outbox(tmp_path / "box", Sink()):
            pass
    assert not (tmp_path / "target").exists()


async def test_bad_arguments(tmp_path: Path) -> None:
    """Each is refused at once; so is use before entry or after the end."""
    wrong: list[dict[str, Any]] = [
        {"send": 3},
        {"max_items": 0},
        {"max_bytes": True},
        {"max_age": 0},
        {"overflow": "wait"},
        {"batch": 0},
        {"backoff": 3},
    ]
    for options in wrong:
        arguments: dict[str, Any] = {"path": tmp_path / "box", "send": Sink(), **options}
        with pytest.raises(rxd.ConfigError):
            rxd.Outbox(**arguments)
    box = rxd.Outbox(tmp_path / "box", Sink(away=True), backoff=QUICK)
    with pytest.raises(rxd.ConfigError, match="must be open"):
        await box.put(1)
    async with box:
        with pytest.raises(rxd.CodecError):
            await box.put(object())
        with pytest.raises(rxd.ConfigError):
            await box.put(1, id="")
        with pytest.raises(rxd.ConfigError, match="entered once"):
            await box.__aenter__()
        await box.put(1)
        waiting = asyncio.create_task(box.flush())
        await asyncio.sleep(0)
    with pytest.raises(rxd.ConfigError, match="must be open"):
        await waiting


async def test_disk_that_fails(tmp_path: Path) -> None:
    """``put`` raises, and the outbox goes on when the disk works again."""
    sink = Sink()
    path = tmp_path / "box"
    async with rxd.Outbox(path, sink, backoff=QUICK) as box:
        await box.flush()
        database = sqlite3.connect(path, isolation_level=None)
        database.execute("ALTER TABLE events RENAME TO away")
        with pytest.raises(rxd.StoreUnavailableError, match="no such table"):
            await box.put(1)
        database.execute("ALTER TABLE away RENAME TO events")
        database.close()
        await box.put(2)
        await box.flush()
    assert [2] == sink.events


async def test_cancellation_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    """Whatever is cancelled, acknowledged events arrive in order."""
    sink = Sink()
    kept: list[int] = []
    path = tmp_path / "box"

    async def use(turns: int) -> None:
        async with rxd.Outbox(path, sink, batch=3, backoff=QUICK) as box:
            while True:
                number = len(kept) + 1000 * turns
                await box.put(number, id=str(number))
                kept.append(number)

    for turns in range(60):
        running = asyncio.create_task(use(turns))
        for _ in range(turns * 3):
            await asyncio.sleep(0)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    async with rxd.Outbox(path, sink) as box:
        await box.flush()
    seen = rxd.Dedupe()
    arrived: list[int] = []
    for batch in sink.batches:
        for event in batch:
            if event.id not in seen:
                seen.add(event.id)
                arrived.append(event.event)
    assert arrived == sorted(arrived)
    assert set(kept) <= set(arrived)


@pytest.mark.parametrize("seed", [1, 2])
async def test_ten_thousand_events_through_cuts(tmp_path: Path, seed: int) -> None:
    """Receiver and connection fail at random, but all events arrive once and in order."""
    count = 10_000
    rng = random.Random(seed)
    async with Receiver(rng) as far:
        target = parse_url(f"redis://127.0.0.1:{far.port}")
        async with Proxy(target, tcp=True) as proxy:

            async def send(events: list[rxd.OutboxEvent]) -> None:
                await send_to(proxy.target.port, events)

            async def cut() -> None:
                while True:
                    await asyncio.sleep(rng.uniform(0.001, 0.02))
                    proxy.cut()

            async with rxd.Outbox(tmp_path / "box", send, batch=50, backoff=QUICK) as box:
                cutting = asyncio.create_task(cut())
                for start in range(0, count, 500):
                    await asyncio.gather(*(box.put(n) for n in range(start, start + 500)))
                await box.flush()
                cutting.cancel()
                assert (count, 0) == (box.stats.sent, box.stats.dropped)
                assert box.stats.failures > 20
        assert list(range(count)) == far.received
        assert far.dropped > 10
        assert far.repeated > 0


async def test_killed_again_and_again(tmp_path: Path) -> None:
    """Events that were acknowledged before a SIGKILL arrive in order."""
    path, acknowledged = str(tmp_path / "box"), str(tmp_path / "acknowledged")
    async with Receiver(random.Random(3)) as far:
        port = str(far.port)
        for turn in range(4):
            goal = lines(acknowledged) + 10 + 7 * turn
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.pipelines.outbox.receiver", path, port, acknowledged],
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.DEVNULL,
            )
            try:
                await eventually(lambda: lines(acknowledged) >= goal)  # noqa: B023
            finally:
                process.kill()
                process.wait()

        async def send(events: list[rxd.OutboxEvent]) -> None:
            await send_to(far.port, events)

        async with rxd.Outbox(path, send, backoff=QUICK) as box:
            await box.flush()
        received = [n for n in far.received if isinstance(n, int)]
        unique = list(dict.fromkeys(received))
        # A process that is killed before it records an event puts it again, with the same id.
        assert set(range(10 * lines(acknowledged))) <= set(unique)
        assert unique == sorted(unique)


async def test_dedupe_forgets_the_oldest() -> None:
    """``Dedupe`` keeps as many ids as configured; an id that it has forgotten counts as new."""
    done = rxd.Dedupe(2)
    for name in ("a", "b", "a", "c"):
        done.add(name)
    assert (True, False, True, 2) == ("a" in done, "b" in done, "c" in done, len(done))
    with pytest.raises(rxd.ConfigError):
        rxd.Dedupe(0)


async def test_the_context_of_a_put_stays_with_it(tmp_path: Path) -> None:
    """The task that writes does not see the context, as it also serves other puts."""
    mark: ContextVar[str] = ContextVar("mark", default="none")
    seen: list[str] = []
    async with rxd.Outbox(tmp_path / "box", Sink()) as box:
        write = box._write

        async def watched() -> None:
            seen.append(mark.get())
            await write()

        box._write = watched  # type: ignore[method-assign]
        mark.set("mine")
        await box.put(1)
    assert ["none"] == seen


@pytest.mark.parametrize("error", [SystemExit(3), asyncio.CancelledError(), PanicError("rust")])
async def test_events_wait_whatever_send_raises(error: BaseException, tmp_path: Path) -> None:
    """The events are sent again."""
    got: list[Any] = []
    errors = [error]

    async def send(events: list[rxd.OutboxEvent]) -> None:
        if errors:
            raise errors.pop()
        got.extend(event.event for event in events)

    with capture_logs() as logs:
        async with rxd.Outbox(tmp_path / "box", send, backoff=QUICK) as box:
            await box.put(1)
            await box.flush()
    assert [1] == got
    assert ["outbox_waits", "outbox_going_on"] == [entry["event"] for entry in logs]


def test_send_must_run_and_take_events(tmp_path: Path) -> None:
    """A generator function is refused, as calling it runs nothing."""

    async def rows(events: Any) -> Any:
        yield events

    async def nothing() -> None:
        """Take no events."""

    path = tmp_path / "box"
    with pytest.raises(rxd.ConfigError, match="send must not be a generator function"):
        rxd.Outbox(path, rows)
    with pytest.raises(rxd.ConfigError, match="send must take 1 argument"):
        rxd.Outbox(path, nothing)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
