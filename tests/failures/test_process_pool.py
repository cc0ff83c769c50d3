"""Handlers that end the process of the pool in which they run."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failures.fleet import eventually, subscribed
from tests.failures.handlers import in_process
from tests.servers import valkey_server


async def test_culprit_dies_and_innocents_finish(tmp_path: Path) -> None:
    """The pool is rebuilt, its tasks run again one by one, and only the culprits are dead."""
    journal = str(tmp_path / "journal")
    tasks = [
        rxd.Task({"do": "sleep", "path": journal, "seconds": 0.05}, id=f"good{i}")
        for i in range(12)
    ]
    for i, at in enumerate((2, 9)):
        bad = rxd.Task({"do": "exit", "path": journal, "seconds": 0.03}, id=f"bad{i}")
        tasks.insert(at, bad)
    ids = [task.id for task in tasks]
    outcomes: list[rxd.Outcome[Any, Any]] = []
    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: rxd.Board[Any] = hub.board("b")
        async with subscribed(hub, board) as account:
            await board.submit(tasks)
            with ProcessPoolExecutor(
                2, mp_context=multiprocessing.get_context("spawn")
            ) as executor:
                await rxd.run(
                    board.claims(until="joined", lease=2.0).pipe(
                        ops.execute(in_process, max_concurrent=4, executor=executor),
                        ops.settle(board),
                        ops.dead_letter(outcomes.append),
                    )
                )
            await eventually(lambda: account.finished(ids))
            assert account.settled_once(ids)
            assert {"bad0": 1, "bad1": 1} == account.count("dead")
            assert not account.count("crashed", "retried", "released")
        letters = [letter async for letter in board.dead_letters()]
        assert {("bad0", "crashed"), ("bad1", "crashed")} == {
            (d.task.id, d.reason) for d in letters
        }
    assert ["bad0", "bad1"] == sorted(o.claim.task.id for o in outcomes)
    runs = Counter(Path(journal).read_text().split())
    # A culprit runs once with others and once alone; each pool that breaks may take others down.
    assert {"bad0": 2, "bad1": 2} == {i: n for i, n in runs.items() if i.startswith("bad")}
    assert all(1 <= n <= 3 for n in runs.values())
    assert set(ids) == set(runs)
