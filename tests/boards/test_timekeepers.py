"""On a server: who comes when a task is due, and what idle workers cost."""

from __future__ import annotations

import asyncio
import struct
import time
from pathlib import Path
from typing import Any, cast

import hiredis
import pytest

from rxdispatch.boards.base import Board
from rxdispatch.hub import connect
from rxdispatch.task import Task
from tests.boards.places import Bench, Place, until
from tests.boards.waiting import Waiter, caught_up, parked_rooms, wait, wait_all
from tests.servers import Kind, any_server

POLLS = 20
"""How often all idle workers claim together, in a second."""

NOISE = 2.0
"""How many seconds a busy machine may add."""


def count_claims(board: Board[Any]) -> list[float]:
    """Return a list that gets the time of each claim of a handle from now on."""
    engine: Any = board._engine
    plain, times = engine._claim, list[float]()

    async def claim(*args: Any) -> Any:
        times.append(time.monotonic())
        return await plain(*args)

    engine._claim = claim
    return times


async def keepers(bench: Bench, waiters: list[Waiter]) -> list[str]:
    """Return the workers that are timekeepers."""
    field = await bench.hub.client.call("look", "HGET", bench.key("meta"), "keepers") or b""
    names: list[bytes] = []
    while field:
        names.append(field[1 : 1 + field[0]])
        field = field[1 + field[0] :]
    return sorted(w.worker for w in waiters if w.name in names)


async def test_two_of_many_are_told_the_time(server: Place) -> None:
    """Only the claims of the timekeepers say when a task is due, and only they hear of one."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [5] * 10)
        assert ["w0", "w1"] == await keepers(bench, waiters)
        await bench.elsewhere().submit(Task(0, id="later", delay=50.0))
        await caught_up(bench)
        assert [1, 1, *[0] * 8] == [len(w.due_in) for w in waiters]
        assert all(49 < w.due_in[0] <= 50 for w in waiters[:2])
        replies = [await waiter.claim(5) for waiter in waiters]
        assert [True, True, *[False] * 8] == [reply.due_in is not None for reply in replies]
        assert 0 == sum(w.told for w in waiters)


async def test_an_earlier_time_moves_the_timers_of_the_keepers(server: Place) -> None:
    """Nobody claims for it; a later time is not told at all."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="now"))
        (claim,) = await board.claim(1)
        waiters = await wait_all(board, [5] * 5)
        for delay in (50.0, 20.0, 30.0, 10.0):
            await bench.elsewhere().submit(Task(0, delay=delay))
        await board.settle([claim.retry("no", delay=5.0)])
        await caught_up(bench)
        for waiter in waiters[:2]:
            assert [50, 20, 10, 5] == [round(seconds) for seconds in waiter.due_in]
        assert [[]] * 3 == [w.due_in for w in waiters[2:]]
        assert 0 == sum(w.told for w in waiters)


async def test_a_keeper_that_leaves_or_is_busy_is_replaced(server: Place) -> None:
    """The next worker that parks takes its place."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [5] * 4)
        await waiters[0].leave()
        await waiters[2].claim(5)
        assert ["w1", "w2"] == await keepers(bench, waiters)
        # Without room, w1 does not wait for anything.
        await waiters[1].claim(0)
        await waiters[3].claim(5)
        assert ["w2", "w3"] == await keepers(bench, waiters)


async def test_a_keeper_that_dies_is_replaced(server: Place) -> None:
    """Its place is free when it has not been heard of for two and a half seconds."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [5] * 3)
        await board.submit(Task(0, delay=50.0))
        waiters[0].deaf()
        waiters[1].deaf()
        await bench.later(2)
        assert (await waiters[2].claim(5)).due_in is None
        await bench.later(1)
        assert (await waiters[2].claim(5)).due_in is not None


async def test_where_no_keeper_is_left_a_parked_worker_is_told(server: Place) -> None:
    """A script that schedules an earlier task finds that the keepers are dead."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [5] * 4)
        for waiter in waiters[:2]:
            waiter.deaf()
        await caught_up(bench)
        await board.submit(Task(0, delay=50.0))
        await caught_up(bench)
        (told,) = [w for w in waiters if w.told]
        assert told in waiters[2:]
        assert (await told.claim(5)).due_in is not None


async def test_a_hundred_idle_workers_do_not_all_come(server: Place) -> None:
    """Few of them claim around the time at which a task is due."""
    async with server.bench() as bench:
        board = bench.board()
        times, found = count_claims(board), list[Any]()
        subscriptions = [
            board.claims(worker=f"w{n}", prefetch=4).subscribe(found.append) for n in range(100)
        ]
        async with asyncio.timeout(30):
            while len(await parked_rooms(bench)) < 100:
                await asyncio.sleep(0.05)
        for _ in range(3):
            times.clear()
            began = time.monotonic()
            await bench.elsewhere().submit(Task(0, delay=1.0))
            await until(lambda: found)
            await caught_up(bench)
            seconds = time.monotonic() - began
            # Both keepers, the worker that got the task, and the polls of all.
            assert len(times) <= 2 * POLLS * seconds + 6
            await board.settle([found.pop().done()])
        for subscription in subscriptions:
            subscription.dispose()
        await board._intakes.finished()


async def test_a_task_is_due_after_both_keepers_have_died(server: Place) -> None:
    """A worker becomes a keeper at one of its polls, and comes when the task is due."""
    async with server.bench() as bench:
        board, found = bench.board(), list[Any]()
        dead = await wait_all(bench.elsewhere(), [5, 5])
        with board.claims().subscribe(found.append):
            async with asyncio.timeout(30):
                while len(await parked_rooms(bench)) < 3:
                    await asyncio.sleep(0.01)
            await bench.elsewhere().submit(Task(0, delay=1.0))
            for waiter in dead:
                waiter.deaf()
            # Two and a half seconds, and a poll; and the task is announced, or handed over.
            await until(lambda: found, 2.5 + 2 * 1.4 * 1.3 + NOISE)
        await board.settle([claim.done() for claim in found])


# -- idle workers ----------------------------------------------------------------------------


@pytest.mark.serial
async def test_idle_workers_claim_twenty_times_a_second_together(server: Place) -> None:
    """Each polls the less often the more workers are parked."""
    async with server.bench() as bench:
        board = bench.board()
        times = count_claims(board)
        subscriptions = [board.claims(worker=f"w{n}").subscribe() for n in range(80)]
        async with asyncio.timeout(30):
            while len(await parked_rooms(bench)) < 80:
                await asyncio.sleep(0.05)
        # The first polls come early, as few were parked when the first ones claimed.
        times.clear()
        await until(lambda: len(times) >= 80, 60.0)
        counted = len(times)
        began = time.monotonic()
        await asyncio.sleep(4.0)
        rate = (len(times) - counted) / (time.monotonic() - began)
        assert POLLS / 4 <= rate <= POLLS * 2
        for subscription in subscriptions:
            subscription.dispose()
        await board._intakes.finished()


async def written(bench: Bench, path: Path) -> list[tuple[str, bytes]]:
    """Return the commands of an append-only file, with their keys."""
    await bench.hub.client.call("flush", "CONFIG", "SET", "appendfsync", "always")
    reader = hiredis.Reader()
    reader.feed(path.read_bytes())
    found: list[tuple[str, bytes]] = []
    while command := cast("list[bytes] | bool", reader.gets()):
        assert isinstance(command, list)
        name = command[0].decode().upper()
        if name not in {"MULTI", "EXEC", "SELECT"}:
            found.append((name, command[1].rsplit(b":", 1)[1]))
    return found


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_an_idle_poll_writes_only_the_parking(kind: Kind) -> None:
    """The append-only file gets the member of the inbox, and what is stored of it."""
    async with any_server(kind) as target, connect(target.safe) as hub:
        bench = Bench(kind, hub, hub, "board")
        board = bench.board()
        waiters = await wait_all(board, [5, 5, 5])
        call = hub.client.call
        await call("set up", "CONFIG", "SET", "appendonly", "yes")
        await call("set up", "CONFIG", "SET", "appendfsync", "always")
        async with asyncio.timeout(30):
            while b"aof_rewrite_in_progress:1" in await call("ask", "INFO", "persistence"):
                await asyncio.sleep(0.05)
        folder = Path((await call("ask", "CONFIG", "GET", "dir"))[1].decode(), "appendonlydir")
        (path,) = folder.glob("*.incr.aof")
        await waiters[0].claim(5)
        before = len(await written(bench, path))
        for _ in range(4):
            for waiter in waiters:
                await waiter.claim(5)
        after = (await written(bench, path))[before:]
        assert {("ZREM", b"parked"), ("ZADD", b"parked"), ("HSET", b"inboxes")} == set(after)
        assert 3 * 4 * 3 == len(after)
        # A task makes it write more.
        await board.submit(Task(0))
        assert len(await written(bench, path)) > before + len(after)


async def test_unreadable_times_are_passed_over(server: Place) -> None:
    """Any client may publish to an inbox; the worker goes on."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 5)
        for message in (b"", b"x", b"t", b"d", b"d" + b"\0" * 40, b"c", b"c1", b"t" + b"\xff" * 8):
            await bench.hub.client.call("spoil", "PUBLISH", waiter.channel, message)
        far = b"t" + struct.pack(">d", 1e300)
        await bench.hub.client.call("spoil", "PUBLISH", waiter.channel, far)
        await caught_up(bench)
        assert [] == waiter.handed
        await bench.elsewhere().submit(Task(0, id="a"))
        await caught_up(bench)
        assert ["a"] == [*waiter.handed, *[t.id for t in (await waiter.claim(5)).found]]
