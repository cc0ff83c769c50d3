"""Events: what happens to tasks, as listeners see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from rxdispatch.boards.base import Board
from rxdispatch.results import TaskEvent
from rxdispatch.task import Task
from tests.boards.places import Bench, Place, until


@asynccontextmanager
async def heard(bench: Bench, board: Board[Any]) -> AsyncGenerator[list[TaskEvent]]:
    """Collect the events of *board*, beginning when it is certain that they arrive."""
    events: list[TaskEvent] = []
    with board.events.subscribe(events.append):
        await listening(bench, 1)
        yield events


async def listening(bench: Bench, count: int) -> None:
    """Wait until *count* processes listen to the board's events."""
    while bench.kind not in {"memory", "shm"}:
        reply = await bench.hub.client.call("ask", "PUBSUB", "NUMSUB", bench.key("events"))
        if reply[1] == count:
            return
        await asyncio.sleep(0.002)


def brief(event: TaskEvent) -> tuple[str, str, str | None, int | None, int | None, str | None]:
    """Return the fields of an event without its time."""
    return (event.kind, event.task_id, event.worker, event.token, event.attempt, event.reason)


async def test_the_life_of_tasks(place: Place) -> None:
    """Each kind of event comes with its worker, token and attempt."""
    async with place.bench() as bench:
        board, other = bench.board(max_crashes=0, dead_limit=2), bench.elsewhere()
        async with heard(bench, other) as events:
            await board.submit([Task(0, id="a"), Task(0, id="b", delay=100.0)])
            await board.submit([Task(0, id="a")])
            (one,) = await board.claim(1, worker="w1")
            await board.settle([one.retry("no")])
            (two,) = await other.claim(1, worker="w2")
            await other.settle([two.release()])
            (three,) = await board.claim(1, worker="w1")
            await board.settle([three.done(), three.dead("no"), one.done()])
            await board.cancel(["b", "none"])
            await board.redrive()
            (four,) = await board.claim(1, worker="w1", lease=10.0)
            await bench.later(20)
            await other.claim(0)
            await board.submit([Task(0, id="c"), Task(0, id="d")])
            five, six = await board.claim(2, worker="w1")
            await board.settle([five.dead("unfit"), six.retry("no")])
            (seven,) = await board.claim(1, worker="w3")
            await board.cancel("d")
            await until(lambda: len(events) >= 22)
        expected: list[tuple[Any, ...]] = [
            ("submitted", "a", None, None, None, None),
            ("submitted", "b", None, None, None, None),
            ("claimed", "a", "w1", one.token, 1, None),
            ("retried", "a", "w1", one.token, 1, None),
            ("claimed", "a", "w2", two.token, 2, None),
            ("released", "a", "w2", two.token, 2, None),
            ("claimed", "a", "w1", three.token, 2, None),
            ("done", "a", "w1", three.token, 2, None),
            ("dead", "b", None, None, None, "cancelled"),
            ("redriven", "b", None, None, None, None),
            ("claimed", "b", "w1", four.token, 1, None),
            ("crashed", "b", "w1", four.token, 1, None),
            ("dead", "b", "w1", four.token, 1, "crashed"),
            ("submitted", "c", None, None, None, None),
            ("submitted", "d", None, None, None, None),
            ("claimed", "c", "w1", five.token, 1, None),
            ("claimed", "d", "w1", six.token, 1, None),
            ("dead", "c", "w1", five.token, 1, "unfit"),
            ("retried", "d", "w1", six.token, 1, None),
            ("claimed", "d", "w3", seven.token, 2, None),
            ("dead", "d", "w3", seven.token, 2, "cancelled"),
            ("discarded", "b", None, None, None, None),
        ]
        assert expected == [brief(event) for event in events]


async def test_failed_and_expired(place: Place) -> None:
    """Deaths by the last attempt and by the ttl are reported, with or without a worker."""
    async with place.bench() as bench:
        board = bench.board()
        async with heard(bench, bench.elsewhere()) as events:
            await board.submit([Task(0, id="f", max_attempts=1), Task(0, id="e", ttl=50.0)])
            failed, expired = await board.claim(2, worker="w", lease=500.0)
            await board.submit(Task(0, id="x", ttl=50.0))
            await board.settle([failed.retry("no")])
            await bench.later(60)
            await board.settle([expired.release()])
            await board.claim(0)
            await until(lambda: len(events) >= 8)
        expected: list[tuple[Any, ...]] = [
            ("dead", "f", "w", failed.token, 1, "failed"),
            ("dead", "e", "w", expired.token, 1, "expired"),
            ("dead", "x", None, None, None, "expired"),
        ]
        assert expected == [brief(event) for event in events[5:]]


async def test_times(place: Place) -> None:
    """Times are seconds since 1970 and never go back."""
    async with place.bench() as bench:
        board = bench.board()
        before = time.time()
        async with heard(bench, bench.elsewhere()) as events:
            await board.submit([Task(0) for _ in range(10)])
            claims = await board.claim(10)
            await board.settle(claim.done() for claim in claims)
            await until(lambda: len(events) >= 30)
        times = [event.at for event in events]
        assert sorted(times) == times
        assert before - 0.01 <= times[0]
        assert times[-1] <= time.time() + 0.01


async def test_several_listeners(place: Place) -> None:
    """Each listener gets all events once, and none after it has left."""
    async with place.bench() as bench:
        board = bench.board()
        async with heard(bench, board) as first, heard(bench, board) as second:
            left: list[TaskEvent] = []
            with board.events.subscribe(left.append):
                pass
            await board.submit([Task(0, id=f"{n}") for n in range(5)])
            await until(lambda: len(first) == len(second) == 5)
        assert [brief(e) for e in first] == [brief(e) for e in second]
        assert [] == left


async def test_a_listener_that_raises(place: Place) -> None:
    """Neither the board nor the other listeners are affected."""

    def fail(_: TaskEvent) -> None:
        raise RuntimeError("mine")

    async with place.bench() as bench:
        board = bench.board()
        failures: list[Exception] = []
        with board.events.subscribe(fail, failures.append):
            async with heard(bench, board) as events:
                assert ("a",) == (await board.submit(Task(0, id="a"))).accepted
                await until(lambda: events)
                await board.submit(Task(0, id="b"))
                await until(lambda: len(events) == 2)


async def test_ids_and_workers_of_any_kind(place: Place) -> None:
    """Ids and labels of workers arrive unchanged."""
    async with place.bench() as bench:
        board = bench.board()
        ids = ["\x00\n", "ü" * 500, "x" * 1000]
        worker = "ü" * 200
        async with heard(bench, bench.elsewhere()) as events:
            await board.submit([Task(0, id=i) for i in ids])
            await board.claim(3, worker=worker)
            await until(lambda: len(events) >= 6)
        assert [*ids, *ids] == [event.task_id for event in events]
        assert [None] * 3 + [worker] * 3 == [event.worker for event in events]


async def test_nothing_is_published_for_nobody(server: Place) -> None:
    """Without listeners the server publishes nothing."""
    async with server.bench() as bench:
        board = bench.board()

        async def published() -> int:
            stats: bytes = await bench.hub.client.call("ask", "INFO", "commandstats")
            for line in stats.decode().splitlines():
                if line.startswith("cmdstat_publish:"):
                    return int(line.split("calls=")[1].split(",")[0])
            return 0

        async with heard(bench, board) as events:
            await board.submit(Task(0))
            await until(lambda: events)
        await listening(bench, 0)
        await board.submit(Task(0, id="now there is something ready"))
        before = await published()
        await board.submit([Task(0) for _ in range(10)])
        claims = await board.claim(5)
        await board.settle(claim.done() for claim in claims)
        assert before == await published()
