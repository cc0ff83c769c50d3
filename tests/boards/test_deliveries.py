"""On a server: numbered deliveries, their confirmation, and workers that leave."""

from __future__ import annotations

import asyncio
from typing import Any

import attrs

from rxdispatch.hub import connect
from rxdispatch.store.pubsub.channels import Channels
from rxdispatch.store.url import parse_url
from rxdispatch.task import Task
from tests.boards.contract.test_events import heard
from tests.boards.places import Bench, Place, counts, until
from tests.boards.waiting import Waiter, caught_up, parked_rooms, wait, wait_all
from tests.proxy import Proxy

LAPSED = 3
"""Seconds after which a delivery that nobody has confirmed has lapsed."""


async def submit(bench: Bench, *ids: str) -> None:
    """Submit tasks one by one from another process, and wait for the messages."""
    for each in ids:
        await bench.elsewhere().submit(Task(0, id=each))
    await caught_up(bench)


async def held_on_board(bench: Bench) -> int:
    """Return how many tasks are claimed."""
    return (await counts(bench.board()))[2]


# -- messages that are lost, doubled or late -------------------------------------------------


async def test_the_next_claim_returns_a_lost_delivery(server: Place) -> None:
    """It counts against the limit, so the worker never holds more than it asked for."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 3)
        waiter.holding = True
        await submit(bench, "a", "b")
        waiter.letters.clear()
        await submit(bench, "c", "d", "e")
        assert (0, 2, 3, 0, 0) == await counts(bench.board())
        waiter.letters.clear()
        await waiter.claim(3)
        assert (["a", "b", "c"], [], 0) == (waiter.handed, waiter.claimed, waiter.room)
        assert 3 == await held_on_board(bench)
        assert [True] * 3 == await waiter.done()
        await waiter.claim(3)
        assert 1 == waiter.room
        assert ["d", "e"] == waiter.claimed


async def test_a_doubled_message_is_read_once(server: Place) -> None:
    """A worker drops a message that it has read before."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 3)
        waiter.holding = True
        await submit(bench, "a")
        (letter,) = waiter.letters
        waiter.read(letter)
        waiter.read(letter)
        assert ["a"] == waiter.handed
        await waiter.claim(2)
        waiter.read(letter)
        assert (["a"], 0) == (waiter.handed, waiter.told)


async def test_a_message_that_comes_after_the_claim_is_old(server: Place) -> None:
    """The reply had its tasks already."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 3)
        waiter.holding = True
        await submit(bench, "a", "b")
        await waiter.claim(3)
        assert ["a", "b"] == waiter.handed
        waiter.read_all()
        assert (["a", "b"], []) == (waiter.handed, waiter.deliveries)
        await submit(bench, "c")
        assert ([["c"]], 0) == (waiter.deliveries, waiter.told)


async def test_a_gap_makes_the_worker_claim(server: Place) -> None:
    """It runs what came after the gap, and the claim brings only what is missing."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 5)
        waiter.holding = True
        await submit(bench, "a", "b", "c")
        first, second, third = waiter.letters
        waiter.read(first)
        assert 0 == waiter.told
        waiter.read(third)
        assert 1 == waiter.told
        assert ["a", "c"] == waiter.handed
        reply = await waiter.claim(2 + 1)
        assert ["b"] == [task.id for task in reply.handed]
        waiter.read(second)
        waiter.read(third)
        assert ["a", "c", "b"] == waiter.handed
        waiter.read_all()
        await submit(bench, "d")
        assert (["d"], 1) == (waiter.handed[3:], waiter.told)


async def test_messages_that_overtake_each_other(server: Place) -> None:
    """In any order, each task is read once, and nothing is missing at the end."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 9)
        waiter.holding = True
        await submit(bench, "a", "b", "c", "d")
        for place in (3, 1, 0, 2, 3, 0):
            waiter.read(waiter.letters[place])
        assert ["d", "b", "a", "c"] == waiter.handed
        waiter.told = 0
        waiter.read_all()
        await submit(bench, "e")
        assert (["e"], 0) == (waiter.handed[4:], waiter.told)
        assert [] == (await waiter.claim(4)).handed


async def test_a_claim_whose_reply_is_lost(server: Place) -> None:
    """Its claims go back uncounted, and what was handed over before comes with the next claim."""
    async with server.bench() as bench:
        board = bench.board()
        target = parse_url(server.url)
        async with Proxy(target) as proxy, connect(proxy.target.safe) as hub:
            waiter = await wait(hub.board(bench.name), 2)
            waiter.holding = True
            await board.submit([Task(0, id="a"), Task(0, id="b"), Task(0, id="c")])
            assert 2 == await held_on_board(bench)
            await until(lambda: waiter.letters)
            waiter.letters.clear()
            gate = proxy.hold(b"EVALSHA", replies=True)
            claiming = asyncio.create_task(waiter.claim(3))
            await gate.reached()
            assert 3 == await held_on_board(bench)
            claiming.cancel()
            await asyncio.wait({claiming})
            gate.open()
            await waiter.claim(3)
            assert (["a", "b"], ["c"], 0) == (waiter.handed, waiter.claimed, waiter.room)
            assert 3 == await held_on_board(bench)
            assert [(1, 0)] * 3 == [(c.attempt, c.crashes) for c in waiter.claims.values()]
            assert [True] * 3 == await waiter.done()


async def test_never_more_than_what_there_is_room_for(server: Place) -> None:
    """Deliveries that come while a claim is counted, sent and answered count against its limit."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 4)
        waiter.holding = True
        read = waiter.inbox.read
        await submit(bench, "a", "b")
        waiter.read_all()
        # Its limit was counted before it read these messages.
        reply = await waiter.inbox.claim(4, None, 4, read)
        assert (2, [], []) == (waiter.room, reply.found, reply.handed)
        await submit(bench, *"cdefg")
        assert ["a", "b", "c", "d"] == waiter.handed
        assert (0, 3, 4, 0, 0) == await counts(bench.board())


async def test_a_worker_with_many_unread_deliveries_gets_no_more(server: Place) -> None:
    """The board keeps a short list of them, and hands over again after a claim."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 200)
        await submit(bench, *(f"{n}" for n in range(60)))
        assert 20 < len(waiter.handed) < 60
        handed = len(waiter.handed)
        await waiter.claim(200 - handed)
        assert 60 == len(waiter.claims)
        await submit(bench, "more")
        assert "more" in waiter.handed


# -- confirmation ----------------------------------------------------------------------------


async def test_what_lapses_unconfirmed_counts_as_nothing_once(server: Place) -> None:
    """An event tells it, the handle that finds it counts it, and only a claim gets the task."""
    async with server.bench() as bench:
        board = bench.board()
        waiter = await wait(board, 5, worker="frozen")
        async with heard(bench, board) as events:
            await submit(bench, "a", "b")
            await bench.later(LAPSED)
            other = await wait(bench.elsewhere(), 0, worker="other")
            assert (0, 2, 0, 0, 0) == await counts(board)
            assert 2 == other.board.stats.undelivered
            await until(lambda: [e for e in events if e.kind == "undelivered"][1:])
        told = [(e.task_id, e.worker) for e in events if e.kind == "undelivered"]
        assert [("a", "frozen"), ("b", "frozen")] == told
        assert [] == [e for e in events if e.kind == "crashed"]
        # The worker is not parked any more. Now it is only told.
        assert {} == await parked_rooms(bench)
        await other.claim(0)
        await bench.board().pause()
        await other.claim(5)
        await bench.board().resume()
        await caught_up(bench)
        assert ([], []) == (other.handed, waiter.handed[2:])
        assert (await other.claim(5)).found
        assert {"a", "b"} == set(other.claims)
        assert [(1, 0)] * 2 == [(c.attempt, c.crashes) for c in other.claims.values()]
        # A claim that was asked for counts.
        await bench.later(40)
        (again,) = await board.claim(1)
        assert (1, 1) == (again.attempt, again.crashes)


async def test_a_lapse_after_the_confirmation_counts(server: Place) -> None:
    """A confirmed task is like one that was claimed."""
    async with server.bench() as bench:
        board = bench.board()
        waiter = await wait(board, 5, lease=10.0)
        await submit(bench, "a", "b")
        assert [True] == await waiter.confirm(["a"])
        await bench.later(LAPSED)
        claims = {c.task.id: c for c in await board.claim(5)}
        assert {"b"} == set(claims)
        assert 0 == claims["b"].crashes
        await board.settle([claims["b"].done()])
        await bench.later(20)
        (claim,) = await board.claim(5)
        assert ("a", 1) == (claim.task.id, claim.crashes)


async def test_a_part_of_a_delivery_is_confirmed(server: Place) -> None:
    """The rest lapses uncounted, and what was confirmed stays."""
    async with server.bench() as bench:
        board = bench.board()
        waiter = await wait(board, 9)
        await board.submit([Task(0, id=each) for each in "abcde"])
        await caught_up(bench)
        assert ["a", "b", "c", "d", "e"] == waiter.handed
        assert [True, True] == await waiter.confirm(["b", "d"])
        await bench.later(LAPSED)
        assert ["a", "c", "e"] == [c.task.id for c in await bench.elsewhere().claim(9)]
        assert [False, True, False, True, False] == await waiter.confirm("abcde")
        assert [True, True] == await waiter.done(["b", "d"])


async def test_a_settlement_is_a_confirmation(server: Place) -> None:
    """A task that ends within the delivery lease needs no other."""
    async with server.bench() as bench:
        board = bench.board(remember=1000.0)
        waiter = await wait(board, 9)
        await submit(bench, "a", "b")
        assert [True] == await waiter.done(["a"])
        await bench.later(LAPSED)
        assert ["b"] == [c.task.id for c in await board.claim(9)]
        assert [False] == await waiter.done(["b"])


async def test_a_claim_extends_what_it_returns_and_confirms_nothing(server: Place) -> None:
    """What never started does not count as a crash, though its worker was told twice."""
    async with server.bench() as bench:
        board = bench.board()
        waiter = await wait(board, 5)
        waiter.holding = True
        await submit(bench, "a")
        await bench.later(1)
        await waiter.claim(5)
        await bench.later(1)
        assert [] == await bench.elsewhere().claim(5)
        await bench.later(2)
        (claim,) = await bench.elsewhere().claim(5)
        assert ("a", 1, 0) == (claim.task.id, claim.attempt, claim.crashes)


async def test_a_task_that_always_kills_has_one_victim_more(server: Place) -> None:
    """It is handed over once, then only claimed, and dies after ``max_crashes`` lapses."""
    async with server.bench() as bench:
        board = bench.board(max_crashes=2)
        victims = 0
        await wait(board, 5, worker="v0")
        await submit(bench, "killer")
        while True:
            victims += 1
            await bench.later(40)
            waiter = await wait(board, 5, worker=f"v{victims}")
            await caught_up(bench)
            if not waiter.claims:
                break
            assert [] == waiter.deliveries
            waiter.deaf()
        # Claims up to max_crashes + 1 may lapse, and before them the delivery.
        assert 2 + 1 + 1 == victims
        (letter,) = [letter async for letter in board.dead_letters()]
        assert ("crashed", 3) == (letter.reason, letter.crashes)


async def test_after_a_lapse_the_worker_gets_nothing_until_it_claims(server: Place) -> None:
    """A host that is frozen takes one delivery with it, not all that follow."""
    async with server.bench() as bench:
        board = bench.board()
        frozen = await wait(board, 50, worker="frozen")
        frozen.holding = True
        await submit(bench, "a")
        await bench.later(LAPSED)
        await bench.elsewhere().claim(0)
        await submit(bench, "b", "c")
        assert (0, 3, 0, 0, 0) == await counts(board)
        frozen.read_all()
        assert [False] == await frozen.confirm(["a"])
        await frozen.claim(50)
        assert {"a", "b", "c"} == {*frozen.claimed}
        await submit(bench, "d")
        assert "d" in frozen.handed


async def test_a_lapse_does_not_forget_later_deliveries(server: Place) -> None:
    """The claim that sweeps the lapsed one still returns, and counts, what came after it."""
    async with server.bench() as bench:
        waiter = await wait(bench.board(), 3)
        waiter.holding = True
        await submit(bench, "a")
        await bench.later(1)
        await submit(bench, "b", "c")
        await bench.board().submit([Task(0, id="d"), Task(0, id="e")])
        waiter.read(waiter.letters[0])
        await bench.later(1)
        reply = await waiter.claim(2)
        assert ["b", "c"] == [task.id for task in reply.handed]
        assert (0, 3, 2, 0, 0) == await counts(bench.board())


# -- leaving ---------------------------------------------------------------------------------


async def test_what_was_handed_to_one_that_leaves_goes_to_others_at_once(server: Place) -> None:
    """It goes back in its place, uncounted, and other parked workers get it."""
    async with server.bench() as bench:
        board = bench.board()
        leaver = await wait(board, 5)
        leaver.holding = True
        await submit(bench, "a", "b")
        other = await wait(bench.elsewhere(), 3)
        await leaver.leave()
        await caught_up(bench)
        assert {"a", "b"} == {*other.handed, *(t.id for t in (await other.claim(1)).found)}
        assert [(1, 0)] * 2 == [(c.attempt, c.crashes) for c in other.claims.values()]
        assert [leaver.name] not in [[name] for name in await parked_rooms(bench)]


async def test_what_the_leaver_has_read_stays_with_it(server: Place) -> None:
    """Also what it has read beyond a gap; only what it has not read goes back."""
    async with server.bench() as bench:
        board = bench.board()
        leaver = await wait(board, 5)
        leaver.holding = True
        await submit(bench, "a", "b", "c", "d")
        letters = leaver.letters
        leaver.read(letters[0])
        leaver.read(letters[2])
        await leaver.leave()
        assert (0, 2, 2, 0, 0) == await counts(board)
        assert ["b", "d"] == [c.task.id for c in await board.claim(9)]
        assert [True, True] == await leaver.done(["a", "c"])


async def test_nothing_is_handed_to_one_that_has_left(server: Place) -> None:
    """A claim that was under way does not park it again."""
    async with server.bench() as bench:
        target = parse_url(server.url)
        async with Proxy(target) as proxy, connect(proxy.target.safe) as hub:
            leaver = await wait(hub.board(bench.name), 5)
            gate = proxy.hold(b"EVALSHA")
            claiming = asyncio.create_task(leaver.claim(4))
            await gate.reached()
            leaving = asyncio.create_task(leaver.leave())
            for _ in range(5):
                await asyncio.sleep(0)
            gate.open()
            await asyncio.wait({claiming, leaving})
            assert {} == await parked_rooms(bench)
            await submit(bench, "a")
            assert (0, 1, 0, 0, 0) == await counts(bench.board())


async def test_a_leaver_takes_back_a_claim_whose_reply_was_lost(server: Place) -> None:
    """What it would have claimed is ready at once."""
    async with server.bench() as bench:
        board = bench.board()
        target = parse_url(server.url)
        async with Proxy(target) as proxy, connect(proxy.target.safe) as hub:
            leaver = await wait(hub.board(bench.name), 0)
            await board.submit([Task(0, id="a"), Task(0, id="b")])
            gate = proxy.hold(b"EVALSHA", replies=True)
            claiming = asyncio.create_task(leaver.claim(4))
            await gate.reached()
            assert 2 == await held_on_board(bench)
            claiming.cancel()
            await asyncio.wait({claiming})
            gate.open()
            await leaver.leave()
            assert (0, 2, 0, 0, 0) == await counts(board)
            assert {} == await parked_rooms(bench)


# -- announce only ---------------------------------------------------------------------------


async def check_told_only(bench: Bench, waiter: Waiter) -> None:
    """Check that *waiter* is told of each task, once for each claim."""
    await submit(bench, "a")
    assert ([], 0) == (waiter.handed, await held_on_board(bench))
    assert {} == await parked_rooms(bench)
    await submit(bench, "b")
    await waiter.claim(5)
    assert ["a", "b"] == waiter.claimed
    await submit(bench, "c")
    assert [] == waiter.handed
    await waiter.claim(3)
    assert ["a", "b", "c"] == waiter.claimed


async def test_an_inbox_with_a_second_listener_is_only_told(server: Place) -> None:
    """Where PUBLISH does not say who listens, nothing is handed over."""
    async with server.bench() as bench:
        waiter = Waiter(bench.board(), None, "w", 30.0)
        second = Channels(bench.other_hub.client)
        heard: list[bytes | None] = []
        second.channel(waiter.channel).subscribe(heard.append)
        await second.confirmed(waiter.channel)
        await waiter.engine._channels.confirmed(waiter.channel)
        await waiter.claim(5)
        waiter.told = 0
        await check_told_only(bench, waiter)
        assert 2 == waiter.told
        await second.close()


async def test_a_proxy_that_subscribes_elsewhere(server: Place) -> None:
    """The server's PUBLISH returns 0, so the worker claims, and nothing is handed over."""
    async with server.bench() as bench:
        board = bench.board()
        engine: Any = board._engine
        # The worker listens to a channel that the scripts do not know, as on another server.
        keys = engine._keys
        engine._keys = attrs.evolve(keys, tag=b"elsewhere:")
        waiter = Waiter(board, None, "w", 30.0)
        engine._keys = keys
        await engine._channels.confirmed(waiter.channel)
        await waiter.claim(5)
        await check_told_only(bench, waiter)


async def test_an_inbox_alone_after_a_reconnection_is_handed_tasks_again(server: Place) -> None:
    """After each new subscription, the next parking asks the server again."""
    async with server.bench() as bench:
        waiter = Waiter(bench.board(), None, "w", 30.0)
        second = Channels(bench.other_hub.client)
        second.channel(waiter.channel).subscribe(lambda _: None)
        await second.confirmed(waiter.channel)
        await waiter.engine._channels.confirmed(waiter.channel)
        await waiter.claim(5)
        await second.close()
        await submit(bench, "a")
        assert [] == waiter.handed
        await waiter.claim(5)
        waiter.read(None)
        await waiter.claim(4)
        await submit(bench, "b")
        assert ["b"] == waiter.handed


async def test_an_inbox_that_nobody_listens_to_is_passed_over(server: Place) -> None:
    """The next worker gets the task, in the same script."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [5, 6, 7, 8])
        for waiter in waiters[1:]:
            waiter.deaf()
        await until(lambda: len(waiters[0].engine._channels._wanted) < 4)
        await caught_up(bench)
        await submit(bench, "a", "b")
        assert ["a", "b"] == waiters[0].handed
        assert [waiters[0].name] == [*await parked_rooms(bench)]
