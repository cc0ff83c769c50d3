"""On a server: which of the parked workers gets which task."""

from __future__ import annotations

import asyncio
from random import Random
from typing import Any

from reactivex.abc import DisposableBase

from rxdispatch.claim import Claim
from rxdispatch.task import Task
from tests.boards.places import Place, counts, until
from tests.boards.waiting import caught_up, parked_rooms, wait, wait_all

KIB = 1024


def tasks(count: int, payload: Any = 0, **options: Any) -> list[Task[Any]]:
    """Return so many tasks, with their numbers as ids."""
    return [Task(payload, id=f"{n}", **options) for n in range(count)]


async def test_most_room_first_and_of_equals_the_one_heard_of_last(server: Place) -> None:
    """Each task goes to the worker with most room, and of equals to the one that claimed last."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [1, 2, 3, 2])
        for n in range(8):
            await bench.elsewhere().submit(Task(0, id=f"{n}"))
        await caught_up(bench)
        found = [waiter.handed for waiter in waiters]
        assert [["7"], ["3", "6"], ["0", "2", "5"], ["1", "4"]] == found
        assert {} == await parked_rooms(bench)
        await board.submit(Task(0, id="more"))
        assert (0, 1, 8, 0, 0) == await counts(board)


async def test_the_best_tasks_first(server: Place) -> None:
    """A worker with little room gets the best of what is ready, not what was submitted just now."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task(0, id="low", priority=-1), *tasks(2)])
        waiter = await wait(board, 0)
        await board.pause()
        await waiter.claim(2)
        assert 2 == waiter.room
        await board.submit([Task(0, id="urgent", priority=2), Task(0, id="next", priority=1)])
        await caught_up(bench)
        assert [] == waiter.handed
        await board.resume()
        await caught_up(bench)
        assert ["urgent", "next"] == waiter.handed
        assert ["0", "1", "low"] == [c.task.id for c in await board.claim(9)]


async def test_a_few_tasks_go_to_as_many_workers(server: Place) -> None:
    """One script spreads four tasks over four of ten workers."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [20] * 10)
        await board.submit(tasks(4))
        await caught_up(bench)
        assert [1] * 4 == [len(w.handed) for w in waiters if w.handed]
        assert 0 == sum(w.told for w in waiters)
        rooms = sorted((await parked_rooms(bench)).values())
        assert [19] * 4 + [20] * 6 == rooms


async def test_a_script_makes_four_deliveries_and_passes_the_baton(server: Place) -> None:
    """Four workers get sixteen tasks each; another is told, and its claim hands over the next."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [100] * 10)
        await board.submit(tasks(500))
        await caught_up(bench)
        assert [16] * 4 == [len(w.handed) for w in waiters if w.handed]
        (told,) = [w for w in waiters if w.told]
        assert [] == told.handed
        assert 9 == len(await parked_rooms(bench))
        assert 100 == len((await told.claim(100)).found)
        await caught_up(bench)
        assert [16] * 8 == [len(ids) for w in waiters for ids in w.deliveries]
        assert 2 == sum(w.told for w in waiters)
        assert (0, 500 - 228, 228, 0, 0) == await counts(board)


async def test_the_baton_goes_on_until_nothing_is_left(server: Place) -> None:
    """Workers that claim when they are told, and only then, get everything."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [10] * 40)
        await board.submit(tasks(400))
        claims = 0
        while True:
            await caught_up(bench)
            told = [w for w in waiters if w.told]
            if not told:
                break
            assert 1 == len(told)
            told[0].told = 0
            claims += 1
            await told[0].claim(10 - len(told[0].claims))
        assert [10] * 40 == [len(w.claims) for w in waiters]
        assert claims <= 400 / 25


async def test_a_worker_that_is_told_and_has_no_room_passes_the_baton(server: Place) -> None:
    """A claim of nothing hands over what others can take."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [10] * 6)
        await board.submit(tasks(60))
        await caught_up(bench)
        (told,) = [w for w in waiters if w.told]
        handed = sum(len(w.handed) for w in waiters)
        assert [] == (await told.claim(0)).found
        await caught_up(bench)
        assert [] == told.handed
        assert sum(len(w.handed) for w in waiters) > handed


async def test_a_delivery_has_at_most_64_kib(server: Place) -> None:
    """Large tasks go in small deliveries; what does not fit in one is announced."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [50, 50])
        await board.submit(tasks(6, b"-" * 20 * KIB))
        await caught_up(bench)
        assert [3, 3] == [len(w.handed) for w in waiters]
        await board.submit(Task(b"-" * 65 * KIB, id="large"))
        await caught_up(bench)
        assert 6 == sum(len(w.handed) for w in waiters)
        (told,) = [w for w in waiters if w.told]
        assert 1 == len(await parked_rooms(bench))
        assert ["large"] == [task.id for task in (await told.claim(40)).found]


async def test_a_large_task_does_not_hide_those_behind_it(server: Place) -> None:
    """The large task is announced to one worker, and another gets the small ones."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [9, 9])
        await board.submit([Task(b"-" * 65 * KIB, id="large"), *tasks(3)])
        await caught_up(bench)
        assert [False, True] == sorted(w.told > 0 for w in waiters)
        assert ["0", "1", "2"] == sorted(i for w in waiters for i in w.handed)
        assert [] == [w for w in waiters if w.told and w.handed]


async def test_whatever_makes_tasks_ready_hands_them_over(server: Place) -> None:
    """A release, a retry, a redrive, a delay that is over, and a task that is given back."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([*tasks(4), Task(0, id="later", delay=50.0)])
        held = {claim.task.id: claim for claim in await board.claim(4)}
        waiter = await wait(board, 50)

        async def handed(*expected: str) -> None:
            await caught_up(bench)
            assert list(expected) == waiter.handed
            waiter.handed.clear()

        await board.settle(held["0"].release())
        await handed("0")
        await board.settle(held["1"].retry("no", delay=0.0))
        await handed("1")
        await board.settle([held["2"].dead("no"), held["3"].dead("no")])
        await handed()
        await board.redrive(["2"])
        await handed("2")
        await board.redrive()
        await handed("3")
        await waiter.done()
        await bench.later(100)
        # The sweep of another worker.
        await bench.elsewhere().claim(0)
        await handed("later")


async def test_a_paused_board_hands_nothing_over(server: Place) -> None:
    """Parked workers get the tasks when the board goes on."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [9, 9])
        await board.pause()
        await board.submit(tasks(2))
        await caught_up(bench)
        assert [[], []] == [w.handed for w in waiters]
        assert 0 == sum(w.told for w in waiters)
        await board.resume()
        await caught_up(bench)
        assert [1, 1] == [len(w.handed) for w in waiters]


# -- kinds -----------------------------------------------------------------------------------


async def test_a_hundred_kinds(server: Place) -> None:
    """Each task goes to a worker that takes its kind, at once, and to no other."""
    async with server.bench() as bench:
        board = bench.board()
        random = Random(5)
        waiters = [
            await wait(board, 4, [f"k{n}", f"k{(n + 1) % 100}"], worker=f"w{n}") for n in range(100)
        ]
        kinds = [f"k{random.randrange(100)}" for _ in range(100)]
        for n, kind in enumerate(kinds):
            await bench.elsewhere().submit(Task(0, id=f"{n}", kind=kind))
        await caught_up(bench)
        assert 100 == sum(len(w.handed) for w in waiters)
        for waiter in waiters:
            assert {kinds[int(i)] for i in waiter.handed} <= set(waiter.kinds or ())
        assert 0 == sum(w.told for w in waiters)


async def test_many_kinds_in_one_submit(server: Place) -> None:
    """The chain of batons reaches the worker of each kind."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = [await wait(board, 4, [f"k{n}"], worker=f"w{n}") for n in range(50)]
        await board.submit([Task(0, id=f"{n}", kind=f"k{n % 50}") for n in range(100)])
        for _ in range(200):
            await caught_up(bench)
            told = [w for w in waiters if w.told]
            for waiter in told:
                waiter.told = 0
                await waiter.claim(4 - len(waiter.claims))
            if not told:
                break
        assert [{f"{n}", f"{n + 50}"} for n in range(50)] == [set(w.claims) for w in waiters]


async def test_a_worker_of_all_kinds_and_one_of_some(server: Place) -> None:
    """The one with more room gets the task, whatever its kinds."""
    async with server.bench() as bench:
        board = bench.board()
        everything = await wait(board, 2)
        some = await wait(board, 3, ["x", "y"])
        for n in range(4):
            await board.submit(Task(0, id=f"{n}", kind="x"))
        await board.submit(Task(0, id="z", kind="z"))
        await caught_up(bench)
        assert (["0", "1", "3"], ["2", "z"]) == (some.handed, everything.handed)


async def test_tasks_that_nobody_takes_hide_no_others(server: Place) -> None:
    """A thousand tasks of a kind without workers come before the one that is handed over."""
    async with server.bench() as bench:
        board = bench.board()
        waiter = await wait(board, 5, ["x"])
        nobody = [Task(0, id=f"n{n}", kind="nobody") for n in range(20)]
        await board.submit([*nobody, Task(0, id="x", kind="x")])
        await caught_up(bench)
        assert ["x"] == waiter.handed
        many = [Task(0, id=f"m{n}", kind="nobody") for n in range(999)]
        await board.submit([*many, Task(0, id="y", kind="x")])
        for _ in range(20):
            await caught_up(bench)
            if not waiter.told:
                break
            waiter.told = 0
            await waiter.claim(5 - len(waiter.claims))
        assert {"x", "y"} == set(waiter.claims)
        other = await wait(board, 1000, ["nobody"])
        await other.claim(1000)
        assert 1019 == len(other.claimed)


async def test_pause_and_resume_of_a_kind(server: Place) -> None:
    """While a kind is paused, only others are handed over; ``resume`` hands over what waits."""
    async with server.bench() as bench:
        board = bench.board()
        waiter = await wait(board, 20)
        await board.pause(kind="x")
        await board.submit([Task(0, id=f"{n}", kind="xy"[n % 2]) for n in range(6)])
        await caught_up(bench)
        assert ["1", "3", "5"] == waiter.handed
        await board.pause()
        await board.resume(kind="x")
        await caught_up(bench)
        assert (["1", "3", "5"], 0) == (waiter.handed, waiter.told)
        await board.resume()
        await caught_up(bench)
        if waiter.told:
            await waiter.claim(20)
        assert {"0", "1", "2", "3", "4", "5"} == set(waiter.claims)
        await board.pause(kind="x")
        await board.submit(Task(0, id="last", kind="x"))
        await caught_up(bench)
        assert "last" not in waiter.claims
        waiter.told = 0
        await board.resume(kind="x")
        await caught_up(bench)
        if waiter.told:
            await waiter.claim(20)
        assert "last" in waiter.claims


async def test_a_claim_tells_those_that_take_what_it_puts_aside(server: Place) -> None:
    """A worker comes across tasks of another kind, and the parked worker for them is told."""
    async with server.bench() as bench:
        board = bench.board()
        # The large task was announced to it; it claims late, when the other is parked.
        slow = await wait(board, 5, ["y"], worker="slow")
        await board.submit(Task(b"-" * 65 * KIB, id="y", kind="y"))
        await caught_up(bench)
        assert 1 == slow.told
        parked = await wait(board, 0, ["y"], worker="parked")
        await board.pause(kind="y")
        await parked.claim(5)
        await board.resume(kind="x")
        # Not of the paused kind.
        await wait(board, 5, ["x"])
        await caught_up(bench)
        assert 0 == parked.told
        await board.resume(kind="y")
        await caught_up(bench)
        assert 1 == parked.told
        assert ["y"] == [task.id for task in (await parked.claim(5)).found]


async def test_classes_that_nobody_waits_in_are_forgotten(server: Place) -> None:
    """A kind that many different sets of kinds have had does not keep all of them."""
    async with server.bench() as bench:
        board = bench.board()
        for n in range(300):
            waiter = await wait(board, 1, ["x", f"k{n}"], worker=f"w{n}")
            await waiter.leave()
        last = await wait(board, 1, ["x", "last"])
        await board.submit(Task(0, id="x", kind="x"))
        await caught_up(bench)
        assert ["x"] == last.handed
        stored = await bench.hub.client.call("look", "HGET", bench.key("takers"), "kx")
        assert len(stored) <= 8 * 130


# -- a crowd ---------------------------------------------------------------------------------


async def test_a_crowd(server: Place) -> None:
    """Ten thousand tasks reach a thousand workers by few claims, in the order of a chain."""
    async with server.bench() as bench:
        board = bench.board()
        engine: Any = board._engine
        plain, claims = engine._claim, 0

        async def count(*args: Any) -> Any:
            nonlocal claims
            claims += 1
            return await plain(*args)

        engine._claim = count
        found: list[list[Claim[Any]]] = [[] for _ in range(1000)]
        subscriptions = list[DisposableBase]()
        for n, mine in enumerate(found, 1):
            stream = board.claims(prefetch=10, worker=f"w{n}")
            subscriptions.append(stream.subscribe(mine.append))
            # A few come at a time, as in many processes.
            async with asyncio.timeout(30):
                while n % 50 == 0 and len(await parked_rooms(bench)) < n:
                    await asyncio.sleep(0.01)
        claims = 0
        await bench.elsewhere().submit(Task(n) for n in range(10_000))
        await until(lambda: all(found), 60.0)
        await until(lambda: sum(map(len, found)) == 10_000, 60.0)
        assert {10} == set(map(len, found))
        assert claims < 700
        for subscription in subscriptions:
            subscription.dispose()
        await board.settle(claim.done() for mine in found for claim in mine)
        await board._intakes.finished()
