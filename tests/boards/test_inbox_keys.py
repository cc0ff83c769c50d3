"""On a server: the keys of parked workers when they are lost, and what stays at the end."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from rxdispatch.claim import Claim
from rxdispatch.errors import BoardFullError
from rxdispatch.hub import connect
from rxdispatch.task import Task
from tests.boards.contract.test_events import heard
from tests.boards.places import Bench, Place, counts, until
from tests.boards.waiting import caught_up, parked_rooms, wait, wait_all
from tests.servers import Kind, any_server

KEYS = ("meta", "parked", "inboxes", "takers")

SECRET = "ee9b1c66-payload"


async def keys_left(bench: Bench) -> dict[str, int]:
    """Return the keys of a board, and in how many seconds each expires; -1 for never."""
    call = bench.hub.client.call
    found = await call("look", "KEYS", bench.key("*"))
    return {
        name.rsplit(b":", 1)[-1].decode() if b":session:" not in name else "session": await call(
            "look", "TTL", name
        )
        for name in sorted(found)
    }


async def test_at_the_end_only_meta_stays(server: Place) -> None:
    """All other keys are gone when the workers have left, or expire."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = [await wait(board, 5, [f"k{n}"], worker=f"w{n}") for n in range(3)]
        await board.submit([Task(0, kind=f"k{n % 3}") for n in range(3)])
        await caught_up(bench)
        for waiter in waiters:
            assert [True] == await waiter.done()
            await waiter.claim(5)
        for waiter in waiters:
            await waiter.leave()
        left = await keys_left(bench)
        assert {"meta"} == {name for name, ttl in left.items() if ttl < 0}
        assert not {"parked", "inboxes"} & set(left)


@pytest.mark.parametrize("kinds", [None, ["x"]])
async def test_what_killed_workers_leave_expires(server: Place, kinds: list[str] | None) -> None:
    """Whatever they did last, nothing stays for ever."""
    async with server.bench() as bench:
        board = bench.board()
        # The first request of a session is not the one that parks.
        await board.claim(0)
        waiter = await wait(board, 5, kinds)
        await board.submit(Task(0, kind="x"))
        await caught_up(bench)
        assert 1 == len(waiter.handed)
        await waiter.done()
        # Not again within the time of a session.
        left = await keys_left(bench)
        assert {"meta"} == {name for name, ttl in left.items() if ttl < 0}


async def test_dead_inboxes_are_found(server: Place) -> None:
    """Those that were not heard of for long are tried, and forgotten, by the polls of others."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = await wait_all(board, [5] * 6)
        for waiter in waiters[:5]:
            waiter.deaf()
        await caught_up(bench)
        await bench.later(10)
        for _ in range(5):
            await waiters[5].claim(5)
        assert [waiters[5].name] == [*await parked_rooms(bench)]
        assert 1 == await bench.hub.client.call("look", "HLEN", bench.key("inboxes"))


async def test_old_inboxes_with_unread_deliveries_are_forgotten(server: Place) -> None:
    """What nobody will ever read is removed in the end."""
    async with server.bench() as bench:
        board = bench.board()
        dead = await wait(board, 1)
        dead.holding = True
        await board.submit(Task(0))
        await caught_up(bench)
        assert 1 == await bench.hub.client.call("look", "HLEN", bench.key("inboxes"))
        await bench.later(4000)
        other = await wait(bench.elsewhere(), 5)
        assert 1 == len(other.claimed)
        stored = await bench.hub.client.call("look", "HKEYS", bench.key("inboxes"))
        assert [other.name] == stored


# -- keys that are lost ----------------------------------------------------------------------


@pytest.mark.parametrize("lost", KEYS)
async def test_a_key_that_was_evicted(server: Place, lost: str) -> None:
    """Each task still goes to one worker, which has at most what it asked for, after a poll."""
    async with server.bench() as bench:
        board = bench.board()
        waiters = [await wait(board, 3, None if n % 2 else ["x"], worker=f"w{n}") for n in range(4)]
        await board.submit([Task(0, id=f"{n}", kind="x") for n in range(4)])
        await caught_up(bench)
        assert 1 == await bench.hub.client.call("spoil", "DEL", bench.key(lost))
        await bench.elsewhere().submit([Task(0, id=f"{n}", kind="x") for n in range(4, 8)])
        await caught_up(bench)
        for waiter in waiters:
            await waiter.claim(3 - len(waiter.claims))
        await caught_up(bench)
        found = sorted(i for w in waiters for i in w.claims)
        assert [f"{n}" for n in range(8)] == found
        assert all(len(w.claims) <= 3 for w in waiters)
        await bench.elsewhere().submit([Task(0, id=f"{n}", kind="x") for n in range(8, 12)])
        await caught_up(bench)
        assert 12 == sum(len(w.claims) for w in waiters)
        for waiter in waiters:
            assert all(await waiter.done())
        assert (0, 0, 0) == (await counts(board))[:3]


@pytest.mark.parametrize("lost", [*KEYS, "ranges", "leases", "claimed", "ready", "tries"])
async def test_workers_go_on_after_an_eviction(server: Place, lost: str) -> None:
    """Real workers run the next tasks, whatever was lost; nothing fails."""
    async with server.bench() as bench:
        board = bench.board()
        found: list[Claim[Any]] = []

        def take(claim: Claim[Any]) -> None:
            found.append(claim)
            board._intakes.post([claim.done()])

        with board.claims(kinds=["x"], prefetch=4).subscribe(take):
            async with asyncio.timeout(30):
                while not await parked_rooms(bench):
                    await asyncio.sleep(0.01)
            await bench.elsewhere().submit([Task(0, kind="x") for _ in range(3)])
            await until(lambda: len(found) == 3)
            await bench.hub.client.call("spoil", "DEL", bench.key(lost))
            await bench.elsewhere().submit([Task(0, id=f"{n}", kind="x") for n in range(3)])
            await until(lambda: {"0", "1", "2"} <= {claim.task.id for claim in found})
        await board._intakes.finished()


# -- a server without room -------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["valkey", "redis"])
async def test_a_full_server_hands_over_nothing_wrong(kind: Kind) -> None:
    """A refused submit tells nobody; what goes back is handed over, and everything ends once."""
    async with any_server(kind) as target, connect(target.safe) as hub, connect(target.safe) as two:
        bench = Bench(kind, hub, two, "board")
        board = bench.board()
        await board.submit([Task(0, id=f"{n}") for n in range(4)])
        held = {claim.task.id: claim for claim in await board.claim(4)}
        waiters = await wait_all(bench.elsewhere(), [1, 1])
        call = hub.client.call
        await call("fill", "CONFIG", "SET", "maxmemory-policy", "noeviction")
        await call("fill", "CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(BoardFullError):
            await board.submit([Task(0, id=f"more{n}") for n in range(4)])
        with pytest.raises(BoardFullError):
            await board.redrive()
        await caught_up(bench)
        assert [[], []] == [w.handed for w in waiters]
        assert [True] * 3 == await board.settle([held[i].release() for i in ("0", "1", "2")])
        await caught_up(bench)
        assert ["0", "1"] == sorted(i for w in waiters for i in w.handed)
        for waiter in waiters:
            assert all(await waiter.confirm())
            assert all(await waiter.done())
            await waiter.claim(1)
        await caught_up(bench)
        assert ["2"] == [i for w in waiters for i in w.claims]
        assert [True, True] == await board.cancel(["2", "3"])
        await caught_up(bench)
        assert 1 == sum(len(w.lost) for w in waiters)
        await call("fill", "CONFIG", "SET", "maxmemory", "0")
        assert (0, 0, 0, 2, 2) == await counts(board)


# -- secrets ---------------------------------------------------------------------------------


async def test_payloads_are_in_no_event_and_no_log(server: Place) -> None:
    """Also when deliveries lapse, are late, unreadable, too large, or of vanished tasks."""
    with structlog.testing.capture_logs() as logs:
        async with server.bench() as bench:
            board = bench.board()
            async with heard(bench, board) as events:
                waiter = await wait(board, 9)
                waiter.holding = True
                tasks = [Task(SECRET, id=f"{n}", kind="x") for n in range(3)]
                await board.submit([*tasks, Task(SECRET * 9000, id="large")])
                await caught_up(bench)
                letters = list(waiter.letters)
                assert any(SECRET.encode() in letter for letter in letters)
                for letter in letters:
                    for end in (3, 20, 40, len(letter) - 5):
                        waiter.read(letter[:end])
                    waiter.read(letter)
                    waiter.read(b"d" + letter[1:9] + b"\xff" * 30 + SECRET.encode())
                    waiter.read(SECRET.encode())
                    waiter.read(b"t" + SECRET.encode())
                    waiter.read(b"c" + SECRET.encode())
                await bench.later(3)
                await bench.elsewhere().claim(0)
                await bench.hub.client.call("spoil", "HDEL", bench.key("tasks"), "0")
                await waiter.claim(9)
                await waiter.done(i for i in list(waiter.claims) if i != "0")
                await until(lambda: [e for e in events if e.kind == "done"])
        shown = f"{events!r}"
        shown += f"{logs!r}{board!r}{waiter.inbox!r}{board.stats!r}"
    assert "undelivered" in shown
    assert SECRET not in shown
