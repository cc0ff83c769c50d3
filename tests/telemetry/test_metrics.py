"""The metrics of boards, feeds and meters for Prometheus."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from typing import Any

import pytest
import reactivex
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.testing import run_virtual
from tests.proxy import Proxy
from tests.servers import valkey_server


def value(registry: CollectorRegistry, name: str, **labels: str) -> float | None:
    """Return a sample."""
    return registry.get_sample_value(f"rxdispatch_{name}", labels)


async def fail(task: rxd.Task[Any]) -> None:
    """Fail for odd payloads."""
    if task.payload % 2:
        raise ValueError(task.payload)


def test_a_board() -> None:
    """The scrape has tasks by mark, the lag, events by kind, and settlements."""

    async def main() -> None:
        registry = CollectorRegistry()
        board = rxd.MemoryBoard("jobs")
        async with rxd.Metrics(registry) as metrics:
            metrics.watch_board(board, events=True)
            await board.submit(rxd.Task(n, max_attempts=1) for n in range(10))
            work = board.claims(until="idle").pipe(ops.execute(fail), ops.settle(board))
            await rxd.run(work)
            await board.submit([rxd.Task(0), rxd.Task(0), rxd.Task(0, delay=99.0)])
            await board.claim(1)
            await asyncio.sleep(8)
            await metrics.refresh()
            found = {
                mark: value(registry, "board_tasks", board="jobs", mark=mark)
                for mark in ("scheduled", "ready", "claimed", "dead")
            }
            assert {"scheduled": 1, "ready": 1, "claimed": 1, "dead": 5} == found
            assert 1 == value(registry, "board_up", board="jobs")
            assert 5 == value(registry, "board_done_total", board="jobs")
            assert 8 == value(registry, "board_lag_seconds", board="jobs")
            plain = {"board": "jobs", "task_kind": "default"}
            assert 10 == value(registry, "board_settled_total", **plain)
            assert 3 == value(registry, "board_unfinished", **plain)
            assert 1 == value(registry, "board_kinds", board="jobs")
            assert 0 == value(registry, "board_refused_total", board="jobs")
            assert 0 == value(registry, "board_lost_total", board="jobs")
            kinds = {"submitted": 13, "claimed": 11, "done": 5, "dead": 5, "crashed": 0}
            for kind, times in kinds.items():
                assert times == value(registry, "board_events_total", kind=kind, **plain)
        assert value(registry, "board_up", board="jobs") is None

    run_virtual(main())


def test_refused_and_lost() -> None:
    """The scrape has the refused settlements of a worker that was too slow."""

    async def main() -> None:
        registry = CollectorRegistry()
        board = rxd.MemoryBoard("jobs")
        async with rxd.Metrics(registry) as metrics:
            metrics.watch_board(board)
            await board.submit(rxd.Task(n) for n in range(3))
            a, b, c = await board.claim(3, lease=5.0)
            await asyncio.sleep(6)
            await board.claim(0)
            await board.renew([c], 5.0)
            await board.settle([a.done(), b.done()])
            await metrics.refresh()
            plain = {"board": "jobs", "task_kind": "default"}
            assert 0 == value(registry, "board_settled_total", **plain)
            assert 2 == value(registry, "board_refused_total", board="jobs")
            assert 1 == value(registry, "board_lost_total", board="jobs")
            assert 0 == value(registry, "board_undelivered_total", board="jobs")
            assert 0 == value(registry, "board_epochs_total", board="jobs")
            # Nothing subscribes to events, so the board need not publish them.
            assert value(registry, "board_events_total", kind="done", **plain) is None

    run_virtual(main())


def by_kind(registry: CollectorRegistry, name: str, **labels: str) -> dict[str, float]:
    """Return the samples of a board by kind of task."""
    return {
        sample.labels["task_kind"]: sample.value
        for family in registry.collect()
        for sample in family.samples
        if f"rxdispatch_{name}" == sample.name and labels.items() <= sample.labels.items()
    }


def test_kinds_of_tasks() -> None:
    """What is unfinished, settled and reported has its kind; a kind without tasks stays at 0."""

    async def main() -> None:
        registry = CollectorRegistry()
        board = rxd.MemoryBoard("jobs")
        async with rxd.Metrics(registry) as metrics:
            metrics.watch_board(board, events=True)
            await board.submit(rxd.Task(n, kind="xxy"[n % 3], max_attempts=1) for n in range(9))
            await metrics.refresh()
            assert {"default": 0, "x": 6, "y": 3} == by_kind(registry, "board_unfinished")
            assert 2 == value(registry, "board_kinds", board="jobs")
            lost = await board.claim(2, kinds=["x"], lease=5.0)
            await asyncio.sleep(6)
            claims = board.claims(kinds=["x"], until="idle")
            await rxd.run(claims.pipe(ops.execute(fail), ops.settle(board)))
            assert [False, False] == await board.settle([claim.done() for claim in lost])
            await metrics.refresh()
            assert {"default": 0, "x": 0, "y": 3} == by_kind(registry, "board_unfinished")
            assert {"default": 0, "x": 6, "y": 0} == by_kind(registry, "board_settled_total")
            events = {"submitted": (6, 3), "crashed": (2, 0), "done": (3, 0), "dead": (3, 0)}
            for kind, (x, y) in events.items():
                found = by_kind(registry, "board_events_total", kind=kind)
                assert {"default": 0, "x": x, "y": y} == found
        assert not board._writer.settled_kinds.active

    run_virtual(main())


def test_thousands_of_kinds() -> None:
    """The first kinds keep their labels, the others share one, and one line is logged."""

    async def main() -> None:
        registry = CollectorRegistry()
        board = rxd.MemoryBoard("jobs")
        with capture_logs() as logs:
            async with rxd.Metrics(registry) as metrics:
                metrics.watch_board(board, events=True, kinds=2)
                await board.submit([rxd.Task(0, kind=kind) for kind in ("a", "other", "a")])
                assert [] == logs
                await board.submit(rxd.Task(0, kind=f"{n}") for n in range(3000))
                await board.submit([rxd.Task(0, kind="a"), rxd.Task(0)])
                claims = await board.claim(5000)
                await board.settle([claim.done() for claim in claims[:-2]])
                await metrics.refresh()
                assert 2 == value(registry, "board_kinds", board="jobs")
                await board.submit(rxd.Task(0, kind="late"))
                await metrics.refresh()
                for name, expected in (
                    ("board_unfinished", {"default": 1, "a": 1, "0": 0, "other": 1}),
                    ("board_settled_total", {"default": 0, "a": 2, "0": 1, "other": 3000}),
                ):
                    assert expected == by_kind(registry, name)
                found = by_kind(registry, "board_events_total", kind="submitted")
                assert {"default": 1, "a": 3, "0": 1, "other": 3001} == found
        assert [("metrics_kinds_limited", "jobs", 2)] == [
            (entry["event"], entry["board"], entry["limit"]) for entry in logs
        ]

    run_virtual(main())


async def test_no_labels_for_kinds() -> None:
    """With room for none, all kinds but the default one share a label."""
    registry = CollectorRegistry()
    board = rxd.MemoryBoard[Any]("jobs")
    async with rxd.Metrics(registry) as metrics:
        metrics.watch_board(board, kinds=0)
        await board.submit([rxd.Task(0), rxd.Task(0, kind="a"), rxd.Task(0, kind="b")])
        await metrics.refresh()
        assert {"default": 1, "other": 2} == by_kind(registry, "board_unfinished")


async def test_kinds_on_a_server() -> None:
    """A process that only watches sees the kinds of tasks that others submitted."""
    registry = CollectorRegistry()
    async with (
        valkey_server() as server,
        rxd.connect(server.target.safe) as hub,
        rxd.connect(server.target.safe) as other,
        rxd.Metrics(registry) as metrics,
    ):
        metrics.watch_board(hub.board("jobs"))
        await other.board("jobs").submit([rxd.Task(0), rxd.Task(0, kind="ä")])
        await metrics.refresh()
        assert {"default": 1, "ä": 1} == by_kind(registry, "board_unfinished")


def test_meters() -> None:
    """The scrape has rates, latency, items in flight and failures."""

    async def main() -> None:
        registry = CollectorRegistry()

        async def work(seconds: int) -> int:
            await asyncio.sleep(seconds)
            return seconds

        async with rxd.Metrics(registry) as metrics:
            metrics.watch_meters(rxd.measurements)
            stream = reactivex.of(1, 1, 1, 3, 90)
            section = ops.measure("metrics-test", ops.map_async(work, max_concurrent=5))
            task = asyncio.create_task(rxd.run(stream.pipe(section)))
            await asyncio.sleep(5)
            await metrics.refresh()
            name = {"meter": "metrics-test"}
            assert 5 == value(registry, "meter_entered_total", **name)
            assert 4 == value(registry, "meter_left_total", **name)
            assert 1 == value(registry, "meter_in_flight", **name)
            assert 1 == value(registry, "meter_streams", **name)
            assert 1 == value(registry, "meter_entered_per_second", **name)
            assert 0.8 == value(registry, "meter_left_per_second", **name)
            assert 4 == value(registry, "meter_latency_seconds_count", **name)
            assert 6 == value(registry, "meter_latency_seconds_sum", **name)
            assert 3 == value(registry, "meter_latency_max_seconds", **name)
            half = value(registry, "meter_latency_seconds", quantile="0.5", **name)
            assert half == pytest.approx(1, rel=0.1)
            task.cancel()
            await asyncio.wait([task])

            failing = reactivex.throw(ValueError("no")).pipe(ops.measure("metrics-failing"))
            with pytest.raises(ValueError, match="no"):
                await rxd.run(failing)
            await metrics.refresh()
            assert 1 == value(registry, "meter_errors_total", meter="metrics-failing")
            assert (
                value(registry, "meter_latency_seconds", meter="metrics-failing", quantile="0.5")
                is None
            )

    run_virtual(main())


async def test_a_feed() -> None:
    """The scrape has nodes by status, the current mode, and reads by tier."""
    registry = CollectorRegistry()
    async with rxd.connect() as hub, hub.feed() as feed, rxd.Metrics(registry) as metrics:
        metrics.watch_feed(feed)
        changes = asyncio.Event()
        feed.changes.subscribe(lambda _: changes.set())
        await hub.nodes.register([rxd.Node("a", capacity=1), rxd.Node("b", capacity=1)], ttl=600)
        await hub.nodes.drain("b")
        while feed.get("b") is None or feed.nodes()[-1].status is not rxd.NodeStatus.DRAINING:
            changes.clear()
            await changes.wait()
        await feed.fetch("a")
        await metrics.refresh()
        assert 1 == value(registry, "feed_nodes", feed="fleet", status="ready")
        assert 1 == value(registry, "feed_nodes", feed="fleet", status="draining")
        assert 0 == value(registry, "feed_nodes", feed="fleet", status="suspect")
        assert 1 == value(registry, "feed_mode", feed="fleet", mode="NORMAL")
        assert 0 == value(registry, "feed_mode", feed="fleet", mode="LOCAL_ONLY")
        assert 1 == value(registry, "feed_reads_total", feed="fleet", tier="l1")
        assert 0 == value(registry, "feed_gaps_total", feed="fleet")
        calls = value(registry, "feed_redis_calls_total", feed="fleet")
        assert calls is not None
        assert calls > 0
        slow = value(registry, "feed_redis_latency_seconds", feed="fleet", quantile="0.99")
        assert slow is not None
        assert slow > 0


async def test_the_server_goes_and_comes_back() -> None:
    """Old values disappear, one line is logged, and the values return with the server."""
    registry = CollectorRegistry()
    settings = rxd.Settings(store=rxd.StoreSettings(timeout=0.3, attempt_timeout=0.15))
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        rxd.connect(proxy.target.safe, settings=settings) as hub,
        rxd.Metrics(registry, interval=0.05) as metrics,
    ):
        board = hub.board("jobs")
        metrics.watch_board(board)
        await metrics.refresh()
        assert 0 == value(registry, "board_tasks", board="jobs", mark="ready")
        with capture_logs() as logs:
            proxy.blackhole()
            while value(registry, "board_up", board="jobs") != 0:
                await asyncio.sleep(0.01)
            assert value(registry, "board_tasks", board="jobs", mark="ready") is None
            await metrics.refresh()
        assert 1 == sum(entry["event"] == "metrics_unread" for entry in logs)
        proxy.heal()
        while value(registry, "board_up", board="jobs") != 1:
            await asyncio.sleep(0.01)
        assert 0 == value(registry, "board_tasks", board="jobs", mark="ready")


def test_it_reads_every_interval() -> None:
    """The metrics are read repeatedly, until the end of the block."""

    async def main() -> None:
        registry = CollectorRegistry()
        reads: list[float] = []
        clock = asyncio.get_running_loop().time
        began = clock()

        def read() -> dict[str, rxd.Measurement]:
            reads.append(clock() - began)
            return {}

        metrics = rxd.Metrics(registry, interval=2.0)
        metrics.watch_meters(read)
        async with metrics:
            await asyncio.sleep(5)
        await asyncio.sleep(5)
        assert [0.0, 2.0, 4.0] == reads

    run_virtual(main())


async def test_cancelled_while_it_enters() -> None:
    """Nothing stays registered, and nothing goes on running."""
    registry = CollectorRegistry()

    class Slow(rxd.MemoryBoard[Any]):
        async def counts(self) -> rxd.Counts:
            await asyncio.sleep(1000)
            return await super().counts()

    async def enter() -> None:
        metrics = rxd.Metrics(registry)
        metrics.watch_board(Slow("jobs"))
        async with metrics:
            pass

    task = asyncio.create_task(enter())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert b"" == generate_latest(registry)
    async with rxd.Metrics(registry):
        pass


async def test_scrapes_in_a_thread() -> None:
    """A scrape needs no loop, and a failing source does not hide the others."""
    registry = CollectorRegistry()
    board = rxd.MemoryBoard[Any]("jobs ÿ")

    def broken() -> dict[str, rxd.Measurement]:
        raise ValueError("no")

    async with rxd.Metrics(registry) as metrics:
        metrics.watch_meters(broken)
        metrics.watch_board(board)
        await metrics.refresh()
        found: list[bytes] = []
        thread = threading.Thread(target=lambda: found.append(generate_latest(registry)))
        thread.start()
        await asyncio.to_thread(thread.join)
        assert b'rxdispatch_board_up{board="jobs \xc3\xbf"} 1.0' in found[0]


async def test_bad_arguments() -> None:
    """Bad arguments are refused before anything changes."""
    registry = CollectorRegistry()
    for bad in (0, -1, float("nan"), "x"):
        with pytest.raises(rxd.ConfigError, match="interval must"):
            rxd.Metrics(registry, interval=bad)  # type: ignore[arg-type]
    with pytest.raises(rxd.ConfigError, match="registry must"):
        rxd.Metrics("x")  # type: ignore[arg-type]
    board = rxd.MemoryBoard[Any]("jobs")
    async with rxd.Metrics(registry) as metrics:
        with pytest.raises(rxd.ConfigError, match="board must be a board"):
            metrics.watch_board("jobs")  # type: ignore[arg-type]
        with pytest.raises(rxd.ConfigError, match="feed must be a feed"):
            metrics.watch_feed(board)  # type: ignore[arg-type]
        with pytest.raises(rxd.ConfigError, match="read must be callable"):
            metrics.watch_meters({})  # type: ignore[arg-type]
        for bad_kinds in (-1, True, "x"):
            with pytest.raises(rxd.ConfigError, match="kinds must be an int >= 0"):
                metrics.watch_board(board, kinds=bad_kinds)  # type: ignore[arg-type]
        metrics.watch_board(board)
        with pytest.raises(rxd.ConfigError, match="board must be watched once"):
            metrics.watch_board(rxd.MemoryBoard[Any]("jobs"))
        with pytest.raises(rxd.ConfigError, match="registry must have one Metrics"):
            async with rxd.Metrics(registry):
                pass
        with pytest.raises(rxd.ConfigError, match="entered once"):
            await metrics.__aenter__()
        assert "<Metrics open 1 watched>" == repr(metrics)
    with pytest.raises(rxd.ConfigError, match="must be open"):
        metrics.watch_board(rxd.MemoryBoard[Any]("more"))


def test_without_the_extra() -> None:
    """Everything else works, and the error names the extra to install."""
    code = (
        "import sys; sys.modules['prometheus_client'] = sys.modules['opentelemetry'] = None\n"
        "import rxdispatch as rxd\n"
        "for make in (rxd.Metrics, lambda: rxd.traced(print),"
        " lambda: rxd.inject_trace(rxd.Task(0))):\n"
        "    try: make()\n"
        "    except rxd.ConfigError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, second, third = done.stdout.splitlines()
    assert "rxdispatch[metrics]" in first
    assert "rxdispatch[tracing]" in second
    assert second == third
