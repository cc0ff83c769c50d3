"""Cancellation at each await of each method, and in each round of a loop with a pipeline."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from structlog.testing import capture_logs

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failures.fleet import Account, eventually, subscribed
from tests.failures.stepping import Moment, Rounds, cancelled_at
from tests.servers import alive, valkey_server

Board = rxd.Board[Any]
ONE = rxd.Settings(store=rxd.StoreSettings(connections=1))

#: How many tasks of each kind are on a board: "r" is ready, "c" claimed, "d" dead.
EACH = 3


async def _submit(board: Board, _: list[rxd.Claim[Any]]) -> None:
    await board.submit([rxd.Task(0, id=f"new{i}") for i in range(EACH)])


async def _claim(board: Board, _: list[rxd.Claim[Any]]) -> None:
    await _kept(board, await board.claim(10))


async def _claim_ids(board: Board, _: list[rxd.Claim[Any]]) -> None:
    await _kept(board, await board.claim(10, ids=["r0", "r1", "c0"]))


async def _kept(board: Board, claims: list[rxd.Claim[Any]]) -> None:
    # The caller must end the claims that it received, and no others.
    board._intakes.give_back(claims)


async def _renew(board: Board, claims: list[rxd.Claim[Any]]) -> None:
    assert [] == await board.renew(claims, 30.0)


async def _settle(board: Board, claims: list[rxd.Claim[Any]]) -> None:
    assert [True] * EACH == await board.settle([claim.done() for claim in claims])


async def _settle_mixed(board: Board, claims: list[rxd.Claim[Any]]) -> None:
    a, b, c = claims
    assert [True] * EACH == await board.settle([a.retry("x"), b.dead("x"), c.release()])


async def _cancel(board: Board, _: list[rxd.Claim[Any]]) -> None:
    await board.cancel(["r0", "c0"])


async def _redrive(board: Board, _: list[rxd.Claim[Any]]) -> None:
    await board.redrive()


async def _look(board: Board, _: list[rxd.Claim[Any]]) -> None:
    await board.get("r0")
    await board.counts()
    assert EACH == len([letter async for letter in board.dead_letters()])


async def _pause(board: Board, _: list[rxd.Claim[Any]]) -> None:
    await board.pause()
    await board.resume()


METHODS: list[Callable[[Board, list[rxd.Claim[Any]]], Awaitable[None]]] = [
    *(_submit, _claim, _claim_ids, _renew, _settle, _settle_mixed),
    *(_cancel, _redrive, _look, _pause),
]


async def _fill(board: Board) -> list[rxd.Claim[Any]]:
    """Make EACH tasks ready, claimed and dead each; return the claims."""
    await board.submit([rxd.Task(0, id=f"d{i}") for i in range(EACH)])
    await board.settle([claim.dead("x") for claim in await board.claim(EACH)])
    await board.submit([rxd.Task(0, id=f"c{i}") for i in range(EACH)])
    claims = await board.claim(EACH, worker="holder")
    await board.submit([rxd.Task(0, id=f"r{i}") for i in range(EACH)])
    return claims


@pytest.mark.parametrize("moment", ["waiting", "answered"])
@pytest.mark.parametrize("cold", [False, True], ids=["warm", "cold"])
async def test_methods_cancelled_anywhere_leave_nothing(moment: Moment, cold: bool) -> None:
    """After a cancel at any await, the connection is free and no claim or task is left over."""
    async with valkey_server() as server, rxd.connect(server.target.safe) as other:
        for method in METHODS:
            name = method.__name__
            n = 0
            ended = False
            while not ended:
                n += 1
                async with rxd.connect(server.target.safe, settings=ONE) as hub:
                    board: Board = hub.board(f"{name}-{n}")
                    claims = await _fill(board)
                    before = asyncio.all_tasks()
                    if cold:
                        await other.client.call("kill", "CLIENT", "KILL", "TYPE", "normal")
                    work = cancelled_at(_awaited(method, board, claims), n, moment)
                    await asyncio.wait({work})
                    await board._intakes.finished()
                    # The hub's only connection can be used at once.
                    async with asyncio.timeout(1.0):
                        counts = await board.counts()
                    assert before == asyncio.all_tasks(), (name, n)
                    assert 0 == counts.scheduled
                    total = counts.ready + counts.claimed + counts.done + counts.dead
                    assert total in {3 * EACH, 4 * EACH if method is _submit else 3 * EACH}
                    held = [await board.get(f"c{i}") for i in range(EACH)]
                    workers = {state.worker for state in held if state is not None}
                    assert workers <= {"holder", None}, (name, n)
                    assert counts.claimed == sum(
                        state is not None and state.worker == "holder" for state in held
                    ), (name, n)
                    if method in {_settle, _settle_mixed}:
                        # Whether or not the settle was executed, repeating it succeeds.
                        await _settle_again(method, board, claims)
                ended = not work.cancelled()
                if ended:
                    work.result()
            assert n > 1, f"{name} was never cancelled"
        clients = await other.client.call("list", "CLIENT", "LIST")
        assert len(clients.splitlines()) <= 1


async def _awaited(
    method: Callable[[Board, list[rxd.Claim[Any]]], Awaitable[None]],
    board: Board,
    claims: list[rxd.Claim[Any]],
) -> None:
    await method(board, claims)


async def _settle_again(method: object, board: Board, claims: list[rxd.Claim[Any]]) -> None:
    if method is _settle:
        await _settle(board, claims)
        assert (EACH, 0) == ((await board.counts()).done, (await board.counts()).claimed)
    else:
        await _settle_mixed(board, claims)
        assert 0 == (await board.counts()).claimed


async def test_join_cancelled_anywhere_leaves_nothing() -> None:
    """A ``join`` that is cancelled at any await leaves the connection free."""
    async with (
        valkey_server() as server,
        rxd.connect(server.target.safe, settings=ONE) as hub,
    ):
        board: Board = hub.board("b")
        await board.submit(rxd.Task(0))
        for n in range(1, 9):
            for moment in ("waiting", "answered"):
                work = cancelled_at(board.join(), n, moment)
                await asyncio.wait({work}, timeout=0.05)
                work.cancel()
                await asyncio.wait({work})
                assert work.cancelled()
                async with asyncio.timeout(1.0):
                    assert 1 == (await board.counts()).ready


@pytest.mark.parametrize("moment", ["waiting", "answered"])
async def test_connecting_cancelled_anywhere_leaves_no_server(moment: Moment) -> None:
    """A cancel at any await, from ``connect()`` to the end of its block, leaves no server."""
    pids: list[int] = []

    async def session() -> None:
        async with rxd.connect() as hub:
            server: Any = hub._server
            pids.append(server.pid)
            board: Board = hub.board("b")
            await board.submit([rxd.Task(i) for i in range(3)])
            assert 3 == len(await board.claim(3))

    before = asyncio.all_tasks()
    steps = 0
    step = 1
    while True:
        work = cancelled_at(session(), step, moment)
        await asyncio.wait({work})
        assert before == asyncio.all_tasks()
        await eventually(lambda: not any(alive(pid) for pid in pids))
        steps += 1
        if not work.cancelled():
            work.result()
            break
        # How often the hub polls for the starting server varies, but never exceeds this.
        step += 1 if step < 6 else 2
        assert step < 400
    assert steps > 5


@pytest.mark.parametrize("beside", [False, True], ids=["awaited", "left-alone"])
@pytest.mark.parametrize("flow", ["claims", "claim_each", "threads"])
def test_pipeline_cancelled_in_any_round_gives_everything_back(flow: str, beside: bool) -> None:
    """
    The test cancels in the n-th round of the loop, for each n until the pipeline is done.

    The pipeline is awaited, or runs in the background while its hub is left.
    """
    work = {"claims": _claims, "claim_each": _each, "threads": _threads}[flow]
    rounds = Rounds()

    async def main() -> int:
        trouble: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: trouble.append(c))
        async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
            n = 0
            ended = False
            while not ended:
                n += 1
                board: Board = hub.board(f"b{n}")
                async with subscribed(hub, board) as account:
                    ended = await _cancelled_round(
                        server.target.safe, board, account, rounds, n, work, beside
                    )
                assert not trouble, (n, trouble)
        return n

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(rounds)) as runner:
        assert runner.run(main()) > 10


IDS = [f"t{i}" for i in range(12)]
Stream = Callable[[Board], Observable[Any]]


async def _handler(task: rxd.Task[int]) -> None:
    await asyncio.sleep(0.001 * task.payload)


def _plain(task: rxd.Task[int]) -> None:
    time.sleep(0.001 * task.payload)


def _claims(board: Board) -> Observable[Any]:
    return board.claims(until="joined", prefetch=8, lease=30.0).pipe(
        ops.execute(_handler, max_concurrent=3), ops.settle(board, count=2)
    )


def _each(board: Board) -> Observable[Any]:
    return reactivex.from_iterable(IDS).pipe(
        ops.claim_each(board, lease=30.0),
        ops.execute(_handler, max_concurrent=3),
        ops.settle(board, count=2),
    )


def _threads(board: Board) -> Observable[Any]:
    return board.claims(until="joined", prefetch=8, lease=30.0).pipe(
        ops.execute(_plain, max_concurrent=3), ops.settle(board, count=2)
    )


async def _cancelled_round(
    url: str, board: Board, account: Account, rounds: Rounds, n: int, stream: Stream, beside: bool
) -> bool:
    """Cancel in round *n*; return whether the session had ended before."""
    ids = IDS
    await board.submit([rxd.Task(i % 3, id=task_id) for i, task_id in enumerate(ids)])
    before = asyncio.all_tasks()

    async def session() -> None:
        async with rxd.connect(url) as hub:
            source = stream(hub.board(board.name))
            if beside:
                source.subscribe(scheduler=rxd.LoopScheduler(asyncio.get_running_loop()))
                await asyncio.sleep(0.002)
            else:
                await rxd.run(source)

    with capture_logs() as logs:
        work = asyncio.create_task(session())
        rounds.after(n, work.cancel)
        await asyncio.wait({work})
    ended = rounds.pending or not work.cancelled()
    rounds.after(0, lambda: None)
    assert before == asyncio.all_tasks(), n
    # On a busy machine, the connection for messages may take longer than an attempt.
    told = [entry for entry in logs if entry["log_level"] not in {"debug", "info"}]
    assert [] == [entry for entry in told if entry["event"] != "channels_lost"], n
    counts = await board.counts()
    # The claims are back at once, not after the lease of 30 s.
    assert (0, 0) == (counts.claimed, counts.scheduled), n
    assert len(ids) == counts.ready + counts.done, n
    await rxd.run(stream(board))
    await eventually(lambda: account.finished(ids))
    assert account.settled_once(ids), n
    assert not account.count("dead", "crashed"), n
    return ended
