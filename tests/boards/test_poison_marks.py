"""Damaged data of a board on a server does not end a stream."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from rxdispatch.hub import connect
from rxdispatch.task import Task
from tests.servers import Kind, any_server


@pytest.mark.parametrize("kind", ["valkey", "redis"])
@pytest.mark.parametrize(
    "damage",
    [
        ("DEL", "ranges"),
        ("ZADD", "ranges", 1, b"\x01"),
        ("HSET", "tries", "a", b"\x01"),
        ("HSET", "meta", "token", 2**64),
        ("ZADD", "leases", "-inf", "a"),
        ("ZADD", "leases", "-inf", "7"),
    ],
)
async def test_what_cannot_be_read_is_passed_over(kind: Kind, damage: tuple[Any, ...]) -> None:
    """Other tasks are claimed and done, and finally the damaged one too."""
    command, key, *rest = damage
    async with any_server(kind) as target, connect(target.safe) as hub:
        board = hub.board("jobs")
        await board.submit([Task(0, id="a"), Task(1, id="b"), Task(2, id="c")])
        await board.claim(1, ids=["a"], lease=0.05)
        await hub.client.call("damage", command, b"{rxd:jobs}:" + key.encode(), *rest)
        done = 0
        while done < 3:
            claims = await board.claim(3, lease=30.0)
            answers = await board.settle([claim.done() for claim in claims])
            done += sum(answers)
        counts = await board.counts()
        assert (0, 0, 0) == (counts.scheduled, counts.ready, counts.claimed)


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_task_that_was_evicted_is_reported(kind: Kind) -> None:
    """Without its record the task cannot run; the log reports it, and join returns."""
    async with any_server(kind) as target, connect(target.safe) as hub:
        board = hub.board("jobs")
        await board.submit([Task(n, id=f"{n}") for n in range(4)])
        await hub.client.call("evict", "HDEL", b"{rxd:jobs}:tasks", "1", "2")
        with capture_logs() as logs:
            claims = await board.claim(9)
        assert ["0", "3"] == [claim.task.id for claim in claims]
        (entry,) = logs
        assert ("tasks_vanished", "jobs", 2, "1") == (
            entry["event"],
            entry["board"],
            entry["count"],
            entry["first"],
        )
        await board.settle([claim.done() for claim in claims])
        await board.join()
