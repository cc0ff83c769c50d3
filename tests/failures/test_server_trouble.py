"""Servers that die and come back, or lose their data or their scripts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from reactivex import operators as rx
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failures.fleet import NOISE, Worker, eventually, lasting, orders, subscribed
from tests.servers import Kind, any_server, valkey_server


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_restarts_lose_nothing_that_was_acknowledged(kind: Kind, tmp_path: Path) -> None:
    """The server is killed twice under load; workers go on, and each task is done exactly once."""
    acknowledged: list[str] = []
    stop = asyncio.Event()

    async def submitting(board: rxd.Board[Any]) -> None:
        batch: list[rxd.Task[Any]] = []
        n = 0
        while not stop.is_set() or batch:
            if not batch:
                batch = [
                    rxd.Task({"do": "sleep", "seconds": 0.002}, id=str(n + i)) for i in range(10)
                ]
                n += 10
            try:
                result = await board.submit(batch)
            except rxd.StoreUnavailableError:
                continue  # repeat the batch: executed submits are reported as duplicates
            acknowledged.extend((*result.accepted, *result.duplicates))
            batch = []
            await asyncio.sleep(0.01)

    async with lasting(kind) as server, rxd.connect(server.target.safe) as hub:
        # The board remembers ids, so that a batch whose reply was lost can be submitted again
        # safely.
        board: rxd.Board[Any] = hub.board("b", remember=60.0)
        plans = [orders(server.target, "b", tmp_path, name, lease=1.0) for name in ("a", "b")]
        with Worker(plans[0]) as a, Worker(plans[1]) as b:
            await eventually(lambda: a.entries("ready") and b.entries("ready"))
            submitter = asyncio.create_task(submitting(board))

            def done() -> list[str]:
                return a.tasks("outcome", status="done") + b.tasks("outcome", status="done")

            async def restart(after: int, pause: float) -> None:
                await eventually(lambda: len(done()) >= after)
                server.kill()
                await asyncio.sleep(pause)
                server.start()

            await restart(100, 0.2)
            # The server is away for longer than a call is repeated automatically.
            await restart(300, 2.2)
            await eventually(lambda: len(done()) >= 500)
            stop.set()
            await submitter
            await board.join()
            await eventually(lambda: len(done()) >= len(acknowledged))
            assert Counter(acknowledged) == Counter(done())
            assert len(acknowledged) == len(set(acknowledged)) == (await board.counts()).done
            assert None is a.process.poll() is b.process.poll()


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_submit_fails_in_time_while_the_server_is_dead(kind: Kind) -> None:
    """``submit`` fails within 2 s, and works again as soon as the server does."""
    async with lasting(kind) as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        await board.submit(rxd.Task(1, id="before"))
        server.kill()
        start = time.monotonic()
        with pytest.raises(rxd.StoreUnavailableError) as caught:
            await board.submit(rxd.Task(2, id="meanwhile"))
        assert time.monotonic() - start < 2.0 + NOISE / 2
        assert () == caught.value.accepted
        server.start()
        await server.answers()
        result = await board.submit([rxd.Task(1, id="before"), rxd.Task(3, id="after")])
        assert (("after",), ("before",)) == (result.accepted, result.duplicates)


async def test_submit_fails_in_time_while_the_server_is_frozen() -> None:
    """``submit`` fails within 2 s with ``maybe_executed``, and may be repeated."""
    async with lasting("valkey") as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        await board.submit(rxd.Task(1, id="before"))
        server.freeze()
        start = time.monotonic()
        with pytest.raises(rxd.StoreUnavailableError) as caught:
            await board.submit(rxd.Task(2, id="meanwhile"))
        assert time.monotonic() - start < 2.0 + NOISE / 2
        assert caught.value.maybe_executed
        server.thaw()
        result = await board.submit(rxd.Task(2, id="meanwhile"))
        assert {"meanwhile"} == {*result.accepted, *result.duplicates}
        assert 2 == (await board.counts()).ready


async def test_frozen_server_costs_workers_nothing(tmp_path: Path) -> None:
    """If a server freezes past the timeout of calls but not past the lease, no task runs twice."""
    ids = [f"t{i}" for i in range(200)]
    async with lasting("valkey") as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        async with subscribed(hub, board) as account:
            tasks = [rxd.Task({"do": "sleep", "seconds": 0.05}, id=i) for i in ids]
            plans = [orders(server.target, "b", tmp_path, name, lease=8.0) for name in ("a", "b")]
            with Worker(plans[0]) as a, Worker(plans[1]) as b:
                await eventually(lambda: a.entries("ready") and b.entries("ready"))
                await board.submit(tasks)
                await eventually(lambda: len(a.tasks("end")) > 10 and len(b.tasks("end")) > 10)
                server.freeze()
                await asyncio.sleep(2.5)
                server.thaw()
                await eventually(lambda: account.finished(ids))
                assert Counter(ids) == Counter(a.tasks("start") + b.tasks("start"))
                assert None is a.process.poll() is b.process.poll()
            assert account.settled_once(ids)
            assert not account.count("crashed", "dead", "retried")


async def test_stream_survives_a_server_that_forgets_everything() -> None:
    """After FLUSHALL the settles of running handlers are refused, and the next tasks run."""
    started: list[str] = []
    release = asyncio.Event()
    outcomes: list[tuple[str, str]] = []
    tokens: list[int] = []

    async def handler(task: rxd.Task[str]) -> None:
        started.append(task.id)
        tokens.append(rxd.current_claim().token)
        if task.payload == "wait":
            await release.wait()

    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b", max_crashes=2)
        async with subscribed(hub, board) as account:
            stream = board.claims(lease=3.0, prefetch=32).pipe(
                ops.execute(handler, max_concurrent=8), ops.settle(board)
            )
            pipeline = asyncio.create_task(
                rxd.run(
                    stream.pipe(
                        ops.dead_letter(lambda _: pytest.fail("nothing may die")),
                        _collect(outcomes),
                    )
                )
            )
            await board.submit([rxd.Task("wait", id=f"old{i}") for i in range(20)])
            await eventually(lambda: len(started) == 8)
            await hub.client.call("flush", "FLUSHALL")
            release.set()
            await eventually(lambda: len(outcomes) >= 8)
            assert [("lost")] * 8 == [status for _, status in outcomes[:8]]
            news = [f"new{i}" for i in range(20)]
            await board.submit([rxd.Task("run", id=i) for i in news])
            await eventually(lambda: account.finished(news))
            assert not pipeline.done()
            assert Counter(news) == account.count("done")
            assert not account.count("dead", "crashed")
            assert tokens == sorted(tokens)
            assert len(tokens) == len(set(tokens))
            pipeline.cancel()
            await asyncio.wait({pipeline})


async def test_forgotten_scripts_go_unnoticed() -> None:
    """With SCRIPT FLUSH every 50 ms, a pipeline logs no warning, and repeats and loses nothing."""
    count = 600
    ids = [str(i) for i in range(count)]

    async def handler(_: rxd.Task[int]) -> None:
        await asyncio.sleep(0.01)

    async with any_server("valkey") as target, rxd.connect(target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        flushes = 0

        async def flushing() -> None:
            nonlocal flushes
            while True:
                await hub.client.call("flush", "SCRIPT", "FLUSH")
                flushes += 1
                await asyncio.sleep(0.05)

        async with subscribed(hub, board) as account:
            with capture_logs() as logs:
                flusher = asyncio.create_task(flushing())
                for start in range(0, count, 50):
                    await board.submit([rxd.Task(0, id=i) for i in ids[start : start + 50]])
                await rxd.run(
                    board.claims(until="joined", prefetch=32).pipe(
                        ops.execute(handler, max_concurrent=8), ops.settle(board)
                    )
                )
                flusher.cancel()
                await asyncio.wait({flusher})
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)
            assert Counter(ids) == account.count("claimed")
        assert flushes >= 8
        assert [] == [entry for entry in logs if entry["log_level"] != "debug"]


def _collect(outcomes: list[tuple[str, str]]) -> Any:
    def note(outcome: rxd.Outcome[Any, Any]) -> None:
        outcomes.append((outcome.claim.task.id, outcome.status))

    return rx.do_action(note)
