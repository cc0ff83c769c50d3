"""Handlers that take longer than their lease, with and without blocking the loop."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import rxdispatch as rxd
from rxdispatch.claim import LOST
from tests.failures.fleet import Worker, eventually, orders, subscribed
from tests.proxy import Proxy
from tests.servers import valkey_server


async def test_blocked_loop_is_reported_and_nothing_settles_twice(tmp_path: Path) -> None:
    """A handler that blocks the loop past the lease loses its task to another worker."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        # A handler that only waits on the same loop loses its task too.
        tasks = [
            rxd.Task({"do": "block", "seconds": 5.0}, id="block"),
            rxd.Task({"do": "sleep", "seconds": 60.0}, id="beside"),
        ]
        ids = [task.id for task in tasks]
        async with subscribed(hub, board) as account:
            # The sleeping task starts before the blocking one.
            await board.submit(tasks[1])
            go = tmp_path / "go"
            plans = [
                orders(server.target, "b", tmp_path, "a", lease=0.6),
                orders(server.target, "b", tmp_path, "b", lease=0.6, go=str(go)),
            ]
            with Worker(plans[0]) as a:
                with Worker(plans[1]) as b:
                    await eventually(lambda: b.entries("ready"))
                    await eventually(lambda: a.tasks("start") == ["beside"])
                    await board.submit(tasks[0])
                    await eventually(lambda: "block" in a.tasks("start"))
                    go.touch()
                    await eventually(lambda: account.finished(ids))
                    assert a.tasks("outcome") == []
                    await eventually(lambda: len(a.tasks("outcome")) == 2)
                    assert Counter(ids) == Counter(b.tasks("outcome", status="done"))
                assert Counter(ids) == Counter(a.tasks("outcome", status="lost"))
                assert ["beside"] == a.tasks("cancelled")
                warnings = a.logged("event_loop_blocked")
                assert ["warning"] * len(warnings) == [entry["level"] for entry in warnings]
                assert max(float(entry["lag"]) for entry in warnings) > 0.6
                # The worker goes on working.
                await board.submit(rxd.Task({"do": "sleep", "seconds": 0.0}, id="next"))
                await eventually(lambda: a.tasks("outcome", status="done") == ["next"])
            await eventually(lambda: account.finished([*ids, "next"]))
            assert account.settled_once([*ids, "next"])


async def test_blocked_alone_it_settles_what_nobody_took(tmp_path: Path) -> None:
    """The settle is late, but no process swept meanwhile: the token is valid, the work counts."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        async with subscribed(hub, board) as account:
            await board.submit(rxd.Task({"do": "block", "seconds": 1.0}, id="block"))
            plan = orders(server.target, "b", tmp_path, "a", lease=0.3, concurrent=1, prefetch=1)
            with Worker(plan) as a:
                await eventually(lambda: a.tasks("outcome"))
                await board.join()
                a.signal(signal.SIGTERM)
            await eventually(lambda: account.finished(["block"]))
            # If the worker's own claim sweeps before the settle arrives, the task runs again.
            runs = len(a.tasks("start"))
            assert runs in {1, 2}
            assert account.settled_once(["block"])
            assert runs - 1 == account.count("crashed")["block"]


async def test_healthy_task_of_three_leases_runs_once(tmp_path: Path) -> None:
    """Renewal keeps the task, although another worker would take it."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        lease = 0.9
        tasks = [rxd.Task({"do": "sleep", "seconds": 3 * lease}, id=f"long{i}") for i in range(6)]
        ids = [task.id for task in tasks]
        async with subscribed(hub, board) as account:
            await board.submit(tasks)
            with (
                Worker(orders(server.target, "b", tmp_path, "a", lease=lease)) as a,
                Worker(orders(server.target, "b", tmp_path, "b", lease=lease)) as b,
            ):
                await board.join()
                await eventually(lambda: account.finished(ids))
                assert Counter(ids) == Counter(a.tasks("start") + b.tasks("start"))
            assert account.settled_once(ids)
            assert Counter(ids) == account.count("claimed")
            assert not account.count("crashed", "released", "retried", "dead")


async def test_renewal_that_overtakes_a_settlement_is_no_loss() -> None:
    """A claim that is being settled is not reported as lost when a renewal finds it gone."""
    async with (
        valkey_server() as server,
        Proxy(server.target) as proxy,
        rxd.connect(server.target.safe) as direct,
        rxd.connect(proxy.target.safe) as hub,
    ):
        board: rxd.Board[int] = hub.board("overtaken")
        await board.submit(rxd.Task(number) for number in range(50))
        claims = await board.claim(50, lease=5.0)
        gate = proxy.hold(b"EVALSHA", replies=True)
        settling = asyncio.create_task(board.settle([claim.done() for claim in claims]))
        # The server has executed the settlement, and its reply is on its way.
        await gate.reached()
        assert 50 == (await direct.board("overtaken").counts()).done
        assert [] == await board.renew(claims, 5.0)
        assert not settling.done(), "the settlement ended before the renewal"
        gate.open()
        assert [True] * 50 == await settling
        assert not any(claim._state & LOST for claim in claims)
