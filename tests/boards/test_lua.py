"""The Lua scripts on a server that is full, loses data, or is hard to reach."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
from redis.exceptions import ResponseError

from rxdispatch.boards.base import Board
from rxdispatch.claim import Claim
from rxdispatch.config import Settings, StoreSettings
from rxdispatch.errors import BoardFullError, ConfigError, StoreUnavailableError
from rxdispatch.hub import connect
from rxdispatch.store.url import parse_url
from rxdispatch.task import Status, Task
from tests.boards.places import Bench, Place, counts, order
from tests.proxy import Proxy

PATIENT = Settings(store=StoreSettings(timeout=5.0, attempt_timeout=2.0))
HASTY = Settings(store=StoreSettings(timeout=0.3, attempt_timeout=0.15))

# -- what it costs ---------------------------------------------------------------------------


async def encoding(bench: Bench, key: str) -> bytes | None:
    """Return how the server encodes a key of the board."""
    form: bytes | None = await bench.hub.client.call("ask", "OBJECT", "ENCODING", bench.key(key))
    return form


@pytest.mark.parametrize("step", [1, 7, 100])
async def test_records_are_looked_up_and_not_searched(server: Place, step: int) -> None:
    """The server stores records as a hash table, however short they are."""
    async with server.bench() as bench:
        board = bench.board()
        for at in range(0, 100, step):
            await board.submit(Task(n, id=f"{n}") for n in range(at, min(100, at + step)))
        assert b"hashtable" == await encoding(bench, "tasks")
        claims = await board.claim(100)
        await board.settle([claim.done() for claim in claims])
        assert (0, 0, 0, 100, 0) == await counts(board)
        assert None is await encoding(bench, "tasks")


async def test_tasks_of_one_claim_share_a_lease(server: Place) -> None:
    """One lease for each claim; what was renewed in part has leases of its own."""
    async with server.bench() as bench:
        board = bench.board()

        async def leases() -> int:
            size: int = await bench.hub.client.call("ask", "ZCARD", bench.key("leases"))
            assert size == await bench.hub.client.call("ask", "ZCARD", bench.key("ranges"))
            return size

        await board.submit(Task(n, id=f"{n}") for n in range(12))
        claims = await board.claim(8, lease=10.0)
        others = await board.claim(4, lease=10.0)
        assert 2 == await leases()
        assert [] == await board.renew(claims, 10.0)
        assert 2 == await leases()
        # 0 1 | 2 3 | 4 | 5 6 7, where 2, 3 and 5 to 7 are renewed.
        assert [] == await board.renew([claims[n] for n in (2, 3, 5, 6, 7)], 60.0)
        assert 5 == await leases()
        assert [True] == await board.settle([claims[2].done()])
        assert [True] * 2 == await board.settle([claims[5].release(), claims[7].done()])
        await bench.later(15)
        # The leases of 0, 1, 4 and of the others lapse.
        taken = await bench.elsewhere().claim(99)
        assert {"0", "1", "4", "5"} <= {claim.task.id for claim in taken}
        assert [True] * 2 == await board.settle([claims[3].done(), claims[6].done()])
        assert [False] * 4 == await board.settle([claim.done() for claim in others])
        await bench.elsewhere().settle([claim.done() for claim in taken])
        while taken := await bench.elsewhere().claim(99):
            await bench.elsewhere().settle([claim.done() for claim in taken])
        assert (0, 0, 0, 12, 0) == await counts(board)
        assert 0 == await leases()


# -- a full server ---------------------------------------------------------------------------


async def info(bench: Bench, field: str) -> int:
    """Return a number from the server's INFO."""
    text: bytes = await bench.hub.client.call("ask", "INFO", "memory")
    return next(
        int(line.split(":")[1]) for line in text.decode().splitlines() if line.startswith(field)
    )


@asynccontextmanager
async def room(bench: Bench, size: int) -> AsyncGenerator[None]:
    """Leave the server *size* bytes more than it uses."""
    limit = max(1, await info(bench, "used_memory:") + size)
    await bench.hub.client.call("limit", "CONFIG", "SET", "maxmemory-policy", "noeviction")
    await bench.hub.client.call("limit", "CONFIG", "SET", "maxmemory", limit)
    try:
        yield
    finally:
        await bench.hub.client.call("limit", "CONFIG", "SET", "maxmemory", 0)


async def test_a_full_server_refuses_new_tasks(server: Place) -> None:
    """The error has the reason, and the refused tasks leave no trace."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="there"))
        before = await bench.hub.client.call("ask", "HGETALL", bench.key("meta"))
        async with room(bench, -1_000_000):
            with pytest.raises(BoardFullError, match=bench.name) as caught:
                await board.submit([Task(0, id="a", ttl=9.0), Task(0, id="b", delay=9.0)])
            assert () == caught.value.accepted
            assert "maxmemory" in caught.value.why
            assert (0, 1, 0, 0, 0) == await counts(board)
        assert before == await bench.hub.client.call("ask", "HGETALL", bench.key("meta"))
        assert 0 == await bench.hub.client.call("ask", "EXISTS", bench.key("expiry"))
        assert ("a",) == (await board.submit(Task(0, id="a"))).accepted


async def test_a_full_server_finishes_what_it_has(server: Place) -> None:
    """Claims, renewals, settlements, sweeps, cancel and pause still work."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit([Task("x" * 1000, id=i) for i in "abcdefg"])
        (lapsing,) = await board.claim(1, lease=10.0)
        await bench.later(20)
        async with room(bench, -1_000_000):
            # The server has to load the scripts again, which must work too.
            await bench.hub.client.call("flush", "SCRIPT", "FLUSH")
            claims = await board.claim(5)
            assert [*"abcde"] == [claim.task.id for claim in claims]
            assert [] == await board.renew(claims, 60.0)
            ends = [
                claims[0].done(),
                claims[1].retry("no"),
                claims[2].retry("no", delay=9.0),
                claims[3].dead("no"),
                claims[4].release(),
                lapsing.done(),
            ]
            assert [True, True, True, True, True, False] == await board.settle(ends)
            assert [True] == await board.cancel("e")
            await board.pause()
            assert [] == await board.claim(1)
            await board.resume()
            assert (1, 3, 0, 1, 2) == await counts(board)
            with pytest.raises(BoardFullError):
                await board.redrive()
            assert (1, 3, 0, 1, 2) == await counts(board)
            assert [*"fgb"] == await order(board)
        assert 2 == await board.redrive()


async def test_a_server_that_fills_up_meanwhile(server: Place) -> None:
    """The error names the accepted tasks; these are stored, and no others."""
    async with server.bench() as bench:
        board = bench.board()
        ids = [f"{n}" for n in range(6000)]
        async with room(bench, 3_500_000):
            with pytest.raises(BoardFullError) as caught:
                await board.submit([Task("x" * 1000, id=i) for i in ids])
        accepted = caught.value.accepted
        assert len(accepted) in {1000, 2000, 3000}
        assert tuple(ids[: len(accepted)]) == accepted
        assert (0, len(accepted), 0, 0, 0) == await counts(board)
        result = await board.submit([Task("x" * 1000, id=i) for i in ids])
        assert accepted == result.duplicates


# -- a forgetful server ----------------------------------------------------------------------


async def test_flushall(server: Place) -> None:
    """Earlier claims are refused, tokens still grow, and the board keeps working."""
    async with server.bench() as bench:
        board, other = bench.board(max_crashes=1, dead_limit=9), bench.elsewhere()
        await board.submit([Task(0, id="a"), Task(0, id="b")])
        one, two = await board.claim(2)
        await bench.hub.client.call("forget", "FLUSHALL")
        assert [False] == await board.settle([one.done()])
        assert [two] == await board.renew([two], 30.0)
        assert two.lost
        assert (0, 0, 0, 0, 0) == await counts(board)
        assert ("a",) == (await other.submit(Task(0, id="a"))).accepted
        (again,) = await board.claim(1)
        assert again.token > two.token
        assert [False, True] == await board.settle([two.dead("no"), again.done()])
        # The options of the first handle are stored again, so a conflict is noticed.
        with pytest.raises(ConfigError, match=r"^max_crashes must be 1"):
            await bench.elsewhere(max_crashes=2).submit(Task(0))
        await board.join()


async def test_the_same_id_after_a_flush(server: Place) -> None:
    """An earlier claim does not settle a new task of the same id."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task("old", id="a"))
        (old,) = await board.claim(1)
        await bench.hub.client.call("forget", "FLUSHALL")
        await board.submit(Task("new", id="a"))
        (new,) = await bench.elsewhere().claim(1)
        assert [False] == await board.settle([old.done()])
        assert (0, 0, 1, 0, 0) == await counts(board)
        assert [True] == await bench.elsewhere().settle([new.done()])


async def test_tokens_grow_on_a_rolled_back_board(server: Place) -> None:
    """A board that was restored from a backup gives no token twice."""
    async with server.bench() as bench:
        board, call = bench.board(), bench.hub.client.call
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        await board.settle([claim.release()])
        names = ("ready", "tasks", "meta")
        copies = [await call("copy", "DUMP", bench.key(name)) for name in names]
        (before,) = await board.claim(1)
        lost = [bench.key(name) for name in ("leases", "claimed", "ranges")]
        await call("lose", "DEL", *lost)
        for name, copy in zip(names, copies, strict=True):
            await call("restore", "RESTORE", bench.key(name), 0, copy, "REPLACE")
        (after,) = await bench.elsewhere().claim(1)
        assert after.token > before.token
        assert [False] == await board.settle([before.done()])


async def test_scripts_flushed_all_the_time(server: Place) -> None:
    """The board works when scripts are flushed between calls and while a worker claims."""
    async with server.bench() as bench:
        board = bench.board()

        async def flush() -> None:
            while True:
                await bench.other_hub.client.call("flush", "SCRIPT", "FLUSH")
                await asyncio.sleep(0.005)

        flushing = asyncio.create_task(flush())
        with board.claims(prefetch=10).subscribe(lambda claim: board._intakes.post([claim.done()])):
            for n in range(20):
                await board.submit([Task(0, id=f"{n}-{i}") for i in range(20)])
                await asyncio.sleep(0.01)
            async with asyncio.timeout(10.0):
                await board.join()
        flushing.cancel()
        await asyncio.wait([flushing])
        assert (0, 0, 0, 400, 0) == await counts(board)


async def test_a_server_whose_time_was_set_back(server: Place) -> None:
    """The board's clock never goes back: no lease lapses early or lasts an hour longer."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        raw = int(await bench.hub.client.call("ask", "HGET", bench.key("meta"), "raw"))
        await bench.hub.client.call(
            "set back", "HSET", bench.key("meta"), "raw", raw + 3600 * 1_000_000
        )
        await board.submit([Task(0, id="later", delay=20.0), Task(0, id="old", ttl=20.0)])
        (claim,) = await board.claim(1, lease=10.0)
        assert [] == await board.claim(1, ids=["later"])
        assert (1, 1, 1, 0, 0) == await counts(board)
        await bench.later(15)
        (again,) = await board.claim(1)
        assert ["a", "a"] == [claim.task.id, again.task.id]
        assert again.token > claim.token
        await bench.later(15)
        assert ["later"] == [c.task.id for c in await board.claim(5)]
        assert (0, 0, 2, 0, 1) == await counts(board)


async def test_keys_of_another_type(server: Place) -> None:
    """Calls and claims fail with an error that names the problem."""
    async with server.bench() as bench:
        board = bench.board()
        await bench.hub.client.call("spoil", "SET", bench.key("ready"), "x")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await board.submit(Task(0))
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await board.join()
        failed = asyncio.get_running_loop().create_future()
        board.claims().subscribe(on_error=failed.set_result)
        assert "WRONGTYPE" in str(await failed)


async def test_nothing_is_left_behind(server: Place) -> None:
    """A finished board leaves only a small hash, and sessions that expire."""
    async with server.bench() as bench:
        board = bench.board(max_crashes=0, dead_limit=3)
        options: list[dict[str, Any]] = [{}, {"ttl": 500.0}, {"delay": 10.0}, {"priority": 3}]
        await board.submit([Task(0, id=f"{n}", **options[n % 4]) for n in range(40)])
        await bench.later(15)
        claims = await board.claim(40, lease=20.0)
        await board.settle([c.retry("no", 5.0 * (n % 2)) for n, c in enumerate(claims[:20])])
        await board.settle([c.release(5.0 * (n % 2)) for n, c in enumerate(claims[20:35])])
        await bench.later(30)
        await board.cancel(["0", "1", "2", "3"])
        while claims := await board.claim(100):
            await board.settle([claim.done() for claim in claims])
        assert 3 == await board.redrive()
        claims = await board.claim(100)
        await board.settle([claim.done() for claim in claims])
        assert (0, 0, 0, 34, 0) == await counts(board)
        call = bench.hub.client.call
        keys: list[bytes] = await call("ask", "KEYS", b"{rxd:" + bench.name.encode() + b"}:*")
        sessions = [key for key in keys if b"}:session:" in key]
        assert [bench.key("meta")] == [key for key in keys if key not in sessions]
        for key in sessions:
            assert 60_000 < await call("ask", "PTTL", key) <= 180_000


# -- a server that is hard to reach ----------------------------------------------------------


@attrs.frozen
class Shaky:
    """A board whose replies may get lost, and the same board over a reliable connection."""

    proxy: Proxy
    board: Board[Any]
    sure: Board[Any]


@asynccontextmanager
async def shaky(
    server: Place, settings: Settings = PATIENT, **options: Any
) -> AsyncGenerator[Shaky]:
    """Put a proxy between a hub and the server."""
    async with (
        server.bench() as bench,
        Proxy(parse_url(server.url)) as proxy,
        connect(proxy.target.safe, settings=settings) as hub,
    ):
        board: Board[Any] = hub.board(bench.name, **options)
        yield Shaky(proxy, board, bench.board())


async def test_a_submit_whose_reply_is_lost(server: Place) -> None:
    """The repeated submit returns the first answer."""
    async with shaky(server) as it:
        for n in range(3):
            it.proxy.drop_replies(2, b"EVALSHA")
            result = await it.board.submit([Task(0, id=f"{n}a"), Task(0, id=f"{n}a")])
            assert ((f"{n}a",), (f"{n}a",)) == (result.accepted, result.duplicates)
        assert 6 == it.proxy.dropped
        assert (0, 3, 0, 0, 0) == await counts(it.sure)


async def test_a_claim_whose_reply_is_lost(server: Place) -> None:
    """The repeated claim returns the same tasks with the same tokens, and no others."""
    async with shaky(server) as it:
        await it.sure.submit([Task(n, id=f"{n}") for n in range(10)])
        (claim,) = await it.sure.claim(1)
        await it.sure.settle([claim.retry("no")])
        it.proxy.drop_replies(2, b"EVALSHA")
        claims = await it.board.claim(4)
        assert ["1", "2", "3", "4"] == [claim.task.id for claim in claims]
        assert (0, 6, 4, 0, 0) == await counts(it.sure)
        it.proxy.drop_replies(1, b"EVALSHA")
        claims += await it.board.claim(9, ids=["9", "0", "none", "1"])
        assert [("9", 1), ("0", 2)] == [(c.task.id, c.attempt) for c in claims[4:]]
        tokens = [claim.token for claim in claims]
        assert sorted(set(tokens)) == tokens
        assert [True] * 6 == await it.board.settle([claim.done() for claim in claims])


async def test_a_lost_claim_that_had_not_brought_all(server: Place) -> None:
    """The repeated claim reports again that more is due, so the rest follows."""
    async with shaky(server) as it:
        await it.sure.submit([Task(b"x" * 900_000, id=f"{n}") for n in range(30)])
        # The server then knows the script, so the proxy drops the reply to a claim.
        await it.sure.claim(0)
        it.proxy.drop_replies(1, b"EVALSHA")
        claims = await it.board.claim(1000)
        assert [f"{n}" for n in range(30)] == [claim.task.id for claim in claims]
        assert [True] * 30 == await it.board.settle([claim.done() for claim in claims])


async def test_a_lost_claim_less_what_was_taken(server: Place) -> None:
    """The repeated claim leaves out a task that was cancelled meanwhile."""
    async with shaky(server) as it:
        await it.sure.submit([Task(n, id=f"{n}") for n in range(3)])
        it.proxy.drop_replies(1, b"EVALSHA")
        claiming = asyncio.create_task(it.board.claim(3))
        while (await it.sure.counts()).claimed == 0:
            await asyncio.sleep(0)
        await it.sure.cancel("1")
        claims = await claiming
        ids = [claim.task.id for claim in claims]
        assert ids in (["0", "2"], ["0", "1", "2"])
        expected = [claim.task.id != "1" for claim in claims]
        assert expected == await it.board.settle([claim.done() for claim in claims])


async def test_a_settle_whose_reply_is_lost(server: Place) -> None:
    """The repeated settle returns the first answers and settles nothing twice."""
    async with shaky(server) as it:
        await it.sure.submit([Task(n, id=f"{n}") for n in range(6)])
        claims = await it.board.claim(6)
        await it.sure.cancel(["1", "4"])
        ends = [
            claims[0].done(),
            claims[1].done(),
            claims[2].retry("no"),
            claims[3].dead("no"),
            claims[4].release(),
            claims[5].release(),
        ]
        it.proxy.drop_replies(2, b"EVALSHA")
        assert [True, False, True, True, False, True] == await it.board.settle(ends)
        assert 2 == it.proxy.dropped
        assert (0, 2, 0, 1, 3) == await counts(it.sure)
        state = await it.sure.get("2")
        assert state is not None
        assert (Status.READY, 1) == (state.status, state.attempts)


async def test_other_calls_whose_reply_is_lost(server: Place) -> None:
    """Cancel and redrive return the first answers; the other calls are safe to repeat."""
    async with shaky(server) as it:
        board = it.board
        await it.sure.submit([Task(n, id=f"{n}") for n in range(6)])
        (claim,) = await board.claim(1)

        async def lossy(call: Callable[[], Awaitable[Any]]) -> Any:
            it.proxy.drop_replies(1, b"EVALSHA")
            dropped = it.proxy.dropped
            result = await call()
            assert dropped + 1 == it.proxy.dropped
            return result

        assert [True, True, False] == await lossy(lambda: board.cancel(["1", "2", "1"]))
        assert 1 == await lossy(lambda: board.redrive(["1", "3"]))
        assert 1 == await lossy(board.redrive)
        assert [] == await lossy(lambda: board.renew([claim], 30.0))
        await lossy(board.pause)
        assert [] == await lossy(lambda: board.claim(5))
        await lossy(board.resume)
        assert (0, 5, 1, 0, 0) == await lossy(lambda: counts(board))
        state = await lossy(lambda: board.get("0"))
        assert Status.CLAIMED is state.status
        assert [*"34512"] == await order(it.sure)


async def give_up(it: Shaky, call: Callable[[], Awaitable[Any]]) -> StoreUnavailableError:
    """Lose every reply until the caller gives up."""
    it.proxy.drop_replies(1000, b"EVALSHA")
    with pytest.raises(StoreUnavailableError) as caught:
        await call()
    it.proxy.heal()
    assert caught.value.maybe_executed
    return caught.value


async def test_a_submit_that_was_given_up(server: Place) -> None:
    """The error says that it may have been executed; a second submit finds duplicates."""
    async with shaky(server, HASTY) as it:
        await give_up(it, lambda: it.board.submit(Task(0, id="a")))
        assert (0, 1, 0, 0, 0) == await counts(it.sure)
        assert ("a",) == (await it.board.submit(Task(0, id="a"))).duplicates


async def test_a_submit_of_which_a_part_was_given_up(server: Place) -> None:
    """The error names the tasks of the earlier parts."""
    settings = Settings(store=StoreSettings(timeout=1.0, attempt_timeout=0.9))
    async with shaky(server, settings) as it:
        tasks = [Task(0, id=f"{n}") for n in range(1500)]
        first = it.proxy.hold(b"EVALSHA", replies=True)
        submitting = asyncio.create_task(it.board.submit(tasks))
        await first.reached()
        second = it.proxy.hold(b"EVALSHA", replies=True, count=None)
        first.open()
        # Both chunks are written, and the reply to the second is on its way.
        await second.reached()
        assert 1500 == (await it.sure.counts()).ready
        with pytest.raises(StoreUnavailableError) as caught:
            await submitting
        it.proxy.heal()
        assert tuple(f"{n}" for n in range(1000)) == caught.value.accepted
        assert 1500 == len((await it.board.submit(tasks)).duplicates)
        assert (0, 1500, 0, 0, 0) == await counts(it.sure)


async def test_a_claim_that_was_given_up(server: Place) -> None:
    """The next claim of the handle undoes it: same places, no attempt, no crash."""
    async with shaky(server, HASTY) as it:
        await it.sure.submit([Task(n, id=f"{n}") for n in range(5)])
        await give_up(it, lambda: it.board.claim(3))
        assert (0, 2, 3, 0, 0) == await counts(it.sure)
        claims = await it.board.claim(4)
        assert [("0", 1, 0), ("1", 1, 0), ("2", 1, 0), ("3", 1, 0)] == [
            (claim.task.id, claim.attempt, claim.crashes) for claim in claims
        ]
        assert [True] * 4 == await it.board.settle([claim.done() for claim in claims])


async def test_a_claim_that_was_given_up_twice(server: Place) -> None:
    """The next claim undoes several abandoned claims, but no claims of others."""
    async with shaky(server, HASTY) as it:
        await it.sure.submit([Task(n, id=f"{n}") for n in range(6)])
        (mine,) = await it.board.claim(1)
        await give_up(it, lambda: it.board.claim(2))
        (other,) = await it.sure.claim(1)
        await give_up(it, lambda: it.board.claim(1))
        assert [*"1245"] == [claim.task.id for claim in await it.board.claim(9)]
        assert [True] == await it.board.settle([mine.done()])
        assert [True] == await it.sure.settle([other.done()])


async def test_a_claim_that_comes_late(server: Place) -> None:
    """A claim that arrives after its caller gave up claims nothing."""
    async with shaky(server, HASTY) as it:
        await it.sure.submit([Task(n, id=f"{n}") for n in range(4)])
        it.proxy.blackhole()
        with pytest.raises(StoreUnavailableError):
            await it.board.claim(2)
        it.proxy.heal()
        claims = await it.board.claim(4)
        await asyncio.sleep(0.1)
        claims += await it.board.claim(4)
        assert [*"0123"] == sorted(claim.task.id for claim in claims)
        assert [0] * 4 == [claim.crashes for claim in claims]
        assert [True] * 4 == await it.board.settle([claim.done() for claim in claims])


async def test_a_settle_that_was_given_up(server: Place) -> None:
    """A repeated settle returns the true answers, in whatever order the settlements come."""
    async with shaky(server, HASTY) as it:
        await it.sure.submit([Task(n, id=f"{n}") for n in range(5)])
        claims = await it.board.claim(5)
        await it.sure.cancel("1")
        ends = [claims[0].done(), claims[1].done(), claims[2].retry("no"), claims[3].dead("no")]
        await give_up(it, lambda: it.board.settle(ends))
        assert (0, 1, 1, 1, 2) == await counts(it.sure)
        again = [*ends[::-1], claims[4].done()]
        assert [True, True, False, True, True] == await it.board.settle(again)
        assert (0, 1, 0, 2, 2) == await counts(it.sure)


async def test_a_settle_that_never_arrived(server: Place) -> None:
    """A repeated settle ends the claim."""
    async with shaky(server, HASTY) as it:
        await it.sure.submit(Task(0, id="a"))
        (claim,) = await it.board.claim(1)
        it.proxy.blackhole()
        with pytest.raises(StoreUnavailableError):
            await it.board.settle([claim.done()])
        it.proxy.cut()
        it.proxy.heal()
        assert [True] == await it.board.settle([claim.done()])
        assert (0, 0, 0, 1, 0) == await counts(it.sure)


async def test_a_settle_that_was_cancelled(server: Place) -> None:
    """The next settle returns the true answer, whether or not the first one arrived."""
    async with shaky(server) as it:
        for rounds in range(6):
            task_id = f"{rounds}"
            await it.sure.submit(Task(0, id=task_id))
            (claim,) = await it.board.claim(1)
            settling = asyncio.create_task(it.board.settle([claim.done()]))
            for _ in range(rounds):
                await asyncio.sleep(0)
            settling.cancel()
            await asyncio.wait([settling])
            assert [True] == await it.board.settle([claim.done()])
            assert (0, 0, 0, rounds + 1, 0) == await counts(it.sure)


async def test_a_release_that_comes_late(server: Place) -> None:
    """A settle that arrives late does not end the next claim."""
    async with shaky(server, HASTY) as it:
        await it.sure.submit(Task(0, id="a"))
        (old,) = await it.board.claim(1, lease=0.1)
        it.proxy.blackhole()
        with pytest.raises(StoreUnavailableError):
            await it.board.settle([old.done()])
        (new,) = await it.sure.claim(1)
        it.proxy.heal()
        await asyncio.sleep(0.05)
        assert (0, 0, 1, 0, 0) == await counts(it.sure)
        assert [False] == await it.board.settle([old.done()])
        assert [True] == await it.sure.settle([new.done()])


async def test_join_outlives_an_outage(server: Place) -> None:
    """``join`` waits until the server is back."""
    async with shaky(server, HASTY) as it:
        await it.sure.submit(Task(0))
        (claim,) = await it.sure.claim(1)
        joined = asyncio.create_task(it.board.join())
        await asyncio.sleep(0.05)
        it.proxy.blackhole()
        await it.sure.settle([claim.done()])
        await asyncio.sleep(0.5)
        it.proxy.cut()
        it.proxy.heal()
        async with asyncio.timeout(5.0):
            await joined


async def test_claims_outlive_an_outage(server: Place) -> None:
    """The stream pauses during the outage and resumes automatically."""
    async with shaky(server, HASTY) as it:
        found: list[Claim[Any]] = []

        def take(claim: Claim[Any]) -> None:
            found.append(claim)
            it.board._intakes.post([claim.done()])

        await it.sure.submit(Task(0))
        with it.board.claims().subscribe(take):
            while not found:
                await asyncio.sleep(0.005)
            await it.board._intakes.finished()
            it.proxy.blackhole()
            await it.sure.submit(Task(0))
            await asyncio.sleep(0.5)
            it.proxy.cut()
            it.proxy.heal()
            async with asyncio.timeout(5.0):
                await it.sure.join()
        assert 2 == len(found)


# -- the stored format -----------------------------------------------------------------------


async def test_a_newer_format_is_refused(server: Place) -> None:
    """Every call raises an error that names both formats, and changes nothing."""
    async with server.bench() as bench:
        board = bench.board()
        await board.submit(Task(0, id="a"))
        (claim,) = await board.claim(1)
        await bench.hub.client.call("upgrade", "HSET", bench.key("meta"), "format", 2)
        before = await bench.hub.client.call("ask", "HGETALL", bench.key("meta"))
        rule = f"the stored format of board '{bench.name}' must be 1 for this version of rxdispatch"
        for call in (
            lambda: board.submit(Task(0)),
            lambda: bench.elsewhere().submit(Task(0)),
            lambda: board.claim(1),
            lambda: board.renew([claim], 9.0),
            lambda: board.settle([claim.done()]),
            lambda: board.cancel("a"),
            board.redrive,
            board.pause,
            board.counts,
            board.lag,
            lambda: board.get("a"),
        ):
            with pytest.raises(ConfigError, match=rf"^{rule}, got '2'$"):
                await call()
        assert before == await bench.hub.client.call("ask", "HGETALL", bench.key("meta"))
