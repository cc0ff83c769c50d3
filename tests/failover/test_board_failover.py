"""A board on a server that takes over with another clock, and without the last writes."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failover.shifted_server import Pair, pair
from tests.failures.fleet import NOISE, eventually, lasting
from tests.servers import Kind

JUMP = 60_000_000
every_shift = pytest.mark.parametrize("shift", [-5, 0, 40])
every_kind = pytest.mark.parametrize("kind", ["valkey", "redis"])


def key(name: str) -> bytes:
    """Return the name of a key of the board."""
    return b"{rxd:b}:" + name.encode()


async def split(at: Pair, board: rxd.Board[Any]) -> tuple[list[Any], list[Any]]:
    """Claim five tasks, and five more that the new server does not know of."""
    await board.submit([rxd.Task(n, id=f"t{n}") for n in range(10)])
    kept = await board.claim(5, lease=30.0)
    await at.replicate()
    await at.stop_replicating()
    lost = await board.claim(5, lease=30.0)
    assert 5 == len(kept) == len(lost)
    return kept, lost


@every_shift
@every_kind
async def test_tokens_grow_and_leases_hold(kind: Kind, shift: int) -> None:
    """Lost claims get larger tokens than before, and no lease that the data has lapses."""
    async with pair(kind, shift) as at, rxd.connect(at.url) as hub, rxd.connect(at.url) as other:
        board, second = hub.board("b"), other.board("b")
        kept, lost = await split(at, board)
        before = {claim.task.id: claim.token for claim in lost}
        await second.counts()
        at.fail_over()
        with capture_logs() as logs:
            again = await second.claim(10, lease=30.0)
        assert sorted(before) == sorted(claim.task.id for claim in again)
        assert all(claim.token > before[claim.task.id] for claim in again)
        assert all(claim.crashes == 0 for claim in again)
        now = await at.new.time()
        assert all(now < claim.token < now + 2 * JUMP for claim in again)
        assert [] == await board.renew(kept, 30.0)
        assert lost == await board.renew(lost, 30.0)
        assert [False] * 5 == await board.settle([claim.done() for claim in lost])
        assert [True] * 5 == await second.settle([claim.done() for claim in again])
        assert [True] * 5 == await board.settle([claim.done() for claim in kept])
        assert 1 == board.stats.epochs == second.stats.epochs
        (entry,) = [entry for entry in logs if entry["event"] == "server_replaced"]
        assert ("board 'b'", "warning") == (entry["source"], entry["log_level"])
        assert entry["new"].encode() == await at.new.call("HGET", key("meta"), "server")
        assert entry["old"].encode() == await at.new.call("HGET", key("meta"), "servers")


async def test_delays_and_ttls_wait_for_the_server() -> None:
    """A delay and a ttl are not over early on a server whose clock is ahead."""
    async with pair("valkey", 40) as at, rxd.connect(at.url) as hub:
        board = hub.board("b")
        await board.submit([rxd.Task(1, id="later", delay=20.0), rxd.Task(2, id="short", ttl=20.0)])
        await at.replicate()
        await at.stop_replicating()
        at.fail_over()
        assert ["short"] == [claim.task.id for claim in await board.claim(10)]
        counts = await board.counts()
        assert (1, 0) == (counts.scheduled, counts.dead)


async def test_a_stream_learns_at_once_what_was_lost() -> None:
    """Handlers of lost claims are cancelled soon, not a third of a lease later; others go on."""
    started: set[str] = set()
    cancelled: list[str] = []
    release = asyncio.Event()

    async def handler(task: rxd.Task[Any]) -> None:
        started.add(task.id)
        try:
            await release.wait()
        except asyncio.CancelledError:
            cancelled.append(task.id)
            raise

    async with pair("valkey", 40) as at, rxd.connect(at.url) as hub:
        board = hub.board("b")
        stream = board.claims(lease=120.0).pipe(
            ops.execute(handler, max_concurrent=20), ops.settle(board)
        )
        running = asyncio.create_task(rxd.run(stream))
        await board.submit([rxd.Task(n, id=f"kept{n}") for n in range(5)])
        await eventually(lambda: len(started) == 5)
        await at.replicate()
        await at.stop_replicating()
        await board.submit([rxd.Task(n, id=f"lost{n}") for n in range(5)])
        await eventually(lambda: len(started) == 10)
        at.fail_over()
        took = await eventually(lambda: len(cancelled) == 5)
        assert took < 3.0 + NOISE
        assert [f"lost{n}" for n in range(5)] == sorted(cancelled)
        assert (1, 5) == (board.stats.epochs, board.stats.lost)
        release.set()
        await eventually(lambda: board.stats.settled == 5)
        running.cancel()
        await asyncio.wait({running})


@every_kind
async def test_a_lost_reply_repeats_no_jump(kind: Kind) -> None:
    """The first claim on the new server is repeated, gets the same tasks, and jumps once."""
    async with pair(kind, -5) as at, rxd.connect(at.url) as hub:
        board = hub.board("b")
        await board.submit([rxd.Task(n) for n in range(5)])
        await at.replicate()
        await at.stop_replicating()
        at.fail_over()
        at.proxy.drop_replies(1, b"EVAL")
        claims = await board.claim(5)
        assert 1 == at.proxy.dropped
        assert 5 == len(claims)
        ahead = claims[0].token - await at.new.time()
        assert 0 < ahead < JUMP + 6_000_000
        assert 1 == len((await at.new.call("HGET", key("meta"), "servers")).split())
        assert 1 == board.stats.epochs


@every_kind
async def test_a_start_with_the_same_data(kind: Kind) -> None:
    """The time in which there was no server does not count for leases."""
    async with lasting(kind) as server, rxd.connect(server.target.safe) as hub:
        board = hub.board("b")
        await board.submit([rxd.Task(n) for n in range(5)])
        claims = await board.claim(5, lease=1.5)
        server.kill()
        await asyncio.sleep(2.0)
        server.start()
        await server.answers()
        assert [] == await board.claim(5)
        assert [True] * 5 == await board.settle([claim.done() for claim in claims])
        assert 1 == board.stats.epochs
