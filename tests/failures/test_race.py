"""Processes that race for the same tasks."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import rxdispatch as rxd
from tests.failures.fleet import Worker, eventually, orders, subscribed
from tests.servers import valkey_server


async def test_each_task_of_a_broadcast_runs_once(tmp_path: Path) -> None:
    """Two processes claim all ids, each in its own order, and each task runs in one of them."""
    ids = [f"t{i}" for i in range(400)]
    go = tmp_path / "go"

    def mixed(seed: int) -> list[str]:
        return random.Random(seed).sample(ids, len(ids))

    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        async with subscribed(hub, board) as account:
            await board.submit([rxd.Task({"do": "sleep", "seconds": 0.002}, id=i) for i in ids])
            common: dict[str, Any] = {"flow": "each", "lease": 5.0, "go": str(go)}
            with (
                Worker(orders(server.target, "b", tmp_path, "a", ids=mixed(1), **common)) as a,
                Worker(orders(server.target, "b", tmp_path, "b", ids=mixed(2), **common)) as b,
            ):
                await eventually(lambda: a.entries("ready") and b.entries("ready"))
                go.touch()
                assert 0 == await a.ended()
                assert 0 == await b.ended()
                started = a.tasks("start") + b.tasks("start")
                assert a.tasks("start")
                assert b.tasks("start")
                assert Counter(ids) == Counter(started)
                done = a.tasks("outcome", status="done") + b.tasks("outcome", status="done")
                assert Counter(ids) == Counter(done)
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)
            assert Counter(ids) == account.count("claimed")
