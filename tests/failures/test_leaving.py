"""Leaving a hub under load: normally, by cancellation, by a signal, with and without a server."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import attrs
import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.clock import LoopScheduler
from tests.failures.fleet import NOISE, Worker, eventually, lasting, orders, subscribed
from tests.servers import valkey_server

Board = rxd.Board[Any]


@attrs.define
class Load:
    """
    A handler that takes *seconds* and records its runs.

    Attributes:
        stubborn: Whether it sleeps on for 60 s when it is cancelled once.
    """

    seconds: float = 60.0
    stubborn: bool = False
    started: list[str] = attrs.field(factory=list[str])
    ended: list[str] = attrs.field(factory=list[str])
    cancelled: list[str] = attrs.field(factory=list[str])

    async def handler(self, task: rxd.Task[Any]) -> None:
        self.started.append(task.id)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.append(task.id)
            while self.stubborn:
                try:
                    await asyncio.sleep(60.0)
                except asyncio.CancelledError:
                    break
            raise
        self.ended.append(task.id)

    def stream(self, board: Board) -> Any:
        return board.claims(prefetch=16, lease=30.0).pipe(
            ops.execute(self.handler, max_concurrent=4), ops.settle(board)
        )


def tasks(count: int) -> list[rxd.Task[Any]]:
    """Return tasks with ids t0, t1 and so on."""
    return [rxd.Task(0, id=f"t{i}") for i in range(count)]


async def _left_at_once(board: Board, load: Load, session: asyncio.Task[Any]) -> None:
    """Cancel *session* once it works, and check that all claims are given back."""
    await eventually(lambda: len(load.started) == 4)
    start = time.monotonic()
    session.cancel()
    await asyncio.wait({session})
    assert session.cancelled()
    assert time.monotonic() - start < 0.5 + NOISE
    # This holds now, not only when the leases of 30 s are over.
    counts = await board.counts()
    assert (20, 0, 0) == (counts.ready, counts.claimed, counts.scheduled)
    assert Counter(load.started) == Counter(load.cancelled)


@pytest.mark.parametrize("how", ["awaited", "beside", "draining"])
async def test_cancelled_main_gives_claims_back_at_once(how: str) -> None:
    """The session waits for the pipeline, for something else, or for the drain of a normal end."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as observer:
        board: Board = observer.board("b")
        await board.submit(tasks(20))
        load = Load()

        async def main() -> None:
            async with rxd.connect(server.target.safe) as hub:
                stream = load.stream(hub.board("b"))
                if how == "awaited":
                    await rxd.run(stream)
                else:
                    stream.subscribe(scheduler=LoopScheduler(asyncio.get_running_loop()))
                if how == "beside":
                    await asyncio.Event().wait()
                await eventually(lambda: len(load.started) == 4)

        session = asyncio.create_task(main())
        await _left_at_once(board, load, session)


async def test_leaving_drains_within_the_grace() -> None:
    """Running tasks are done and written, others go back, and leaving does not wait longer."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as observer:
        board: Board = observer.board("b")
        async with subscribed(observer, board) as account:
            await board.submit(tasks(20))
            load = Load(seconds=0.4)
            outcomes: list[rxd.Outcome[Any, Any]] = []
            start = time.monotonic()
            with capture_logs() as logs:
                async with rxd.connect(server.target.safe) as hub:
                    stream = load.stream(hub.board("b"))
                    stream.subscribe(
                        outcomes.append,
                        scheduler=LoopScheduler(asyncio.get_running_loop()),
                    )
                    await eventually(lambda: len(load.started) == 4)
            assert time.monotonic() - start < 0.4 + NOISE
            assert Counter(load.started) == Counter(load.ended)
            assert ["done"] * 4 == [outcome.status for outcome in outcomes]
            counts = await board.counts()
            assert (16, 0, 4) == (counts.ready, counts.claimed, counts.done)
            await eventually(lambda: account.finished(load.started))
            assert account.settled_once(load.started)
            assert [] == [entry for entry in logs if entry["log_level"] != "debug"]


async def test_leaving_cancels_what_outlasts_the_grace() -> None:
    """A handler that outlasts the grace is cancelled; its task goes back, with a warning."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as observer:
        board: Board = observer.board("b")
        await board.submit(tasks(20))
        load = Load()
        outcomes: list[rxd.Outcome[Any, Any]] = []
        with capture_logs() as logs:
            async with rxd.connect(server.target.safe, settings=rxd.Settings(grace=0.3)) as hub:
                stream = load.stream(hub.board("b"))
                stream.subscribe(
                    outcomes.append,
                    scheduler=LoopScheduler(asyncio.get_running_loop()),
                )
                await eventually(lambda: len(load.started) == 4)
                start = time.monotonic()
        assert 0.3 <= time.monotonic() - start < 0.3 + 0.5 + NOISE
        assert Counter(load.started) == Counter(load.cancelled)
        assert ["released"] * 4 == [outcome.status for outcome in outcomes]
        counts = await board.counts()
        assert (20, 0, 0) == (counts.ready, counts.claimed, counts.done)
        assert ["grace_ended"] == [e["event"] for e in logs if e["log_level"] == "warning"]


async def test_leaving_does_not_wait_for_handlers_that_do_not_end() -> None:
    """A handler that swallows its cancellation loses its task after 2 s nevertheless."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as observer:
        board: Board = observer.board("b")
        await board.submit(tasks(20))
        load = Load(stubborn=True)
        async with rxd.connect(server.target.safe, settings=rxd.Settings(grace=0.1)) as hub:
            load.stream(hub.board("b")).subscribe(
                scheduler=LoopScheduler(asyncio.get_running_loop())
            )
            await eventually(lambda: len(load.started) == 4)
            start = time.monotonic()
        assert time.monotonic() - start < 0.1 + 2.0 + NOISE
        counts = await board.counts()
        assert (20, 0, 0) == (counts.ready, counts.claimed, counts.done)
    # These handlers run on, as they ignored their cancellation.
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await eventually(lambda: len(asyncio.all_tasks()) == 1)


@pytest.mark.parametrize("how", ["normal", "cancelled"])
async def test_leaving_ends_also_without_a_server(how: str) -> None:
    """If the server dies during settles, the hub still ends, and leaves no asyncio task."""
    async with lasting("valkey") as server:
        load = Load(seconds=0.2)
        errors: list[Exception] = []
        session: asyncio.Task[None]

        async def main() -> None:
            async with rxd.connect(
                server.target.safe,
                settings=rxd.Settings(grace=0.5, store=rxd.StoreSettings(timeout=0.5)),
            ) as hub:
                board: Board = hub.board("b")
                await board.submit(tasks(20))
                load.stream(board).subscribe(
                    on_error=errors.append,
                    scheduler=LoopScheduler(asyncio.get_running_loop()),
                )
                await eventually(lambda: len(load.started) == 4)
                server.kill()
                await eventually(lambda: len(load.ended) >= 4)
                await asyncio.sleep(0.1)
                if how == "cancelled":
                    session.cancel()
                    await asyncio.sleep(0)

        before = asyncio.all_tasks()
        session = asyncio.create_task(main())
        await asyncio.wait({session})
        if not session.cancelled():
            session.result()
        # The tasks that were cancelled last may still pause.
        await eventually(lambda: asyncio.all_tasks() == before, 3.0)


async def test_ctrl_c_gives_claims_back_and_ends_well(tmp_path: Path) -> None:
    """An interrupted worker process gives its claims back and ends with status 0."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: Board = hub.board("b")
        ids = [f"t{i}" for i in range(200)]
        async with subscribed(hub, board) as account:
            await board.submit([rxd.Task({"do": "sleep", "seconds": 0.05}, id=i) for i in ids])
            with Worker(orders(server.target, "b", tmp_path, "a", lease=30.0)) as worker:
                await eventually(lambda: len(worker.tasks("outcome")) >= 20)
                worker.signal(signal.SIGINT)
                assert 0 == await worker.ended(20.0)  # well before a lease has passed
                assert ["interrupted", "left"] == [e["at"] for e in worker.entries()][-2:]
                done = worker.tasks("end")
            counts = await board.counts()
            assert (0, 0) == (counts.claimed, counts.scheduled)
            assert len(ids) == counts.ready + counts.done
            with Worker(
                orders(server.target, "b", tmp_path, "b", concurrent=64, until="joined")
            ) as worker:
                assert 0 == await worker.ended()
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)
            # Tasks run at least once: some had ended, but their settlement was not written.
            again = set(done) & set(worker.tasks("start"))
            assert len(again) <= 4
