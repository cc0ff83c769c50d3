"""Handlers, subscribers and programs that misbehave while tasks are handed to them."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.clock import LoopScheduler
from rxdispatch.operators.tasks._claim import _Claimer
from tests.failures.fleet import NOISE, ROOT, Worker, eventually, lasting, orders
from tests.failures.handed import (
    DELIVERY_LEASE,
    Field,
    field,
    for_ever,
    ids,
    never_polls,
    parked_workers,
    tasks,
)
from tests.failures.stepping import Moment, cancelled_at
from tests.servers import valkey_server

Board = rxd.Board[Any]

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


class Rude(BaseException):
    """No Exception."""


async def parked(all_: Field, count: int) -> None:
    """Wait until so many workers are parked."""

    async def enough() -> bool:
        return await all_.parked() == count

    await eventually(enough)


# -- handlers ------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [Rude, GeneratorExit, asyncio.CancelledError, StopIteration])
async def test_handlers_that_raise_anything(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt has failed, and what is handed over next runs."""
    never_polls(monkeypatch)

    async def raises(task: rxd.Task[Any]) -> None:
        if task.payload % 2:
            raise error

    async with field(max_crashes=0) as all_, all_.hand(raises, most=2):
        for n in range(20):
            await all_.board.submit(tasks(1, n, max_attempts=1))
        await eventually(lambda: all_.account.finished(ids(20)))
        assert Counter(ids(20)[::2]) == all_.account.count("done")
        assert Counter(ids(20)[1::2]) == all_.account.count("dead")
        assert Counter(ids(20)) == all_.runs()
        assert not all_.account.count("crashed")


async def test_handlers_that_never_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker whose slots are all taken is handed nothing; others get the rest."""
    never_polls(monkeypatch)
    async with (
        field() as all_,
        all_.hand(for_ever, most=2, name="stuck", lease=30.0) as stuck,
    ):
        await all_.board.submit(tasks(2))
        await eventually(lambda: len(stuck.started) == 2)
        async with all_.hand(name="free") as free:
            await all_.board.submit(tasks(40, 2))
            await eventually(lambda: len(free.ended) == 40)
        assert 2 == len(stuck.started)
        assert all_.uncounted()


async def test_handler_that_cancels_every_other_task() -> None:
    """Claims, confirmations and the reading of messages are cancelled; the worker goes on."""
    spared: set[asyncio.Task[Any]] = set()

    async def cancels(task: rxd.Task[Any]) -> None:
        if task.payload % 5 == 0:
            me = asyncio.current_task()
            for other in asyncio.all_tasks() - spared - {me}:
                other.cancel()
        await asyncio.sleep(0)

    async with valkey_server() as server, rxd.connect(server.target.safe) as hub:
        board: Board = hub.board("b", max_crashes=0)
        spared = asyncio.all_tasks()
        async with rxd.connect(server.target.safe) as other:
            there: Board = other.board("b")
            ended: list[str] = []
            subscription = (
                there.claims(lease=30.0)
                .pipe(ops.execute(cancels, max_concurrent=2), ops.settle(there))
                .subscribe(
                    lambda outcome: ended.append(outcome.claim.task.id),
                    scheduler=LoopScheduler(asyncio.get_running_loop()),
                )
            )

            async def one() -> bool:
                return await parked_workers(hub, "b") == 1

            await eventually(one)
            for n in range(20):
                await board.submit(tasks(1, n))
                # By a poll, if the connection for messages was cancelled too.
                await eventually(lambda: f"t{n}" in ended)  # noqa: B023 - called at once
            subscription.dispose()
            await there._intakes.finished()
        counts = await board.counts()
        assert (0, 0, 20, 0) == (counts.ready, counts.claimed, counts.done, counts.dead)


# -- subscribers ---------------------------------------------------------------------------------


async def test_subscriber_that_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stream ends with its error; the claims behind go to another worker at once."""
    never_polls(monkeypatch)
    for error in (ValueError("on purpose"), Rude()):
        async with field() as all_, all_.hand(start=False) as first:
            got: list[str] = []
            failed: list[BaseException] = []

            def take(claim: rxd.Claim[Any]) -> None:
                got.append(claim.task.id)  # noqa: B023
                if len(got) == 2:  # noqa: B023
                    raise error  # noqa: B023
                claim._give_back()

            first.board.claims(prefetch=8, lease=1.0).subscribe(
                take, failed.append, scheduler=LoopScheduler(asyncio.get_running_loop())
            )
            await parked(all_, 1)
            await all_.board.submit(tasks(8))
            await eventually(lambda: failed)  # noqa: B023
            assert [error] == failed
            async with all_.hand() as second:
                # The traceback has the claim with which it raised. That was dropped, and its task
                # comes back after a lease; the others at once.
                await eventually(lambda: len(second.ended) == 7)
                error.__traceback__ = None
                await all_.all_done(ids(8))
            assert all_.uncounted()


async def test_operators_see_the_context_of_their_subscriber(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What stands below ``claims`` runs in one context, however a claim has come."""
    never_polls(monkeypatch)
    seen: list[str] = []

    async def nothing(_: rxd.Task[Any]) -> None:
        await asyncio.sleep(0)

    def look(claim: rxd.Claim[Any]) -> None:
        seen.append(tenant.get())

    async with field() as all_, all_.hand(nothing, start=False) as hand:
        tenant.set("ACME")
        await all_.board.submit(tasks(1))
        claims = hand.board.claims().pipe(rx.do_action(look))
        hand.stream = asyncio.create_task(rxd.run(hand.pipeline(claims, 4)))
        await parked(all_, 1)
        # Claimed, confirmed first, and of a kind that is known to be quick.
        for n in range(1, 21):
            await all_.board.submit(tasks(1, n))
            await eventually(lambda: all_.account.finished(ids(n + 1)))  # noqa: B023
    assert ["ACME"] * 21 == seen


async def test_streams_that_ended_are_forgotten() -> None:
    """Neither the hub nor the loop keeps what a parked stream consisted of."""

    def claimers() -> int:
        gc.collect()
        return sum(isinstance(thing, _Claimer) for thing in gc.get_objects())

    before = claimers()
    async with field() as all_, rxd.connect(all_.server.target.safe) as hub:
        board: Board = hub.board("b")
        for n in range(5):
            stream = asyncio.create_task(
                rxd.run(board.claims().pipe(ops.execute(for_ever), ops.settle(board)))
            )
            await parked(all_, 1)
            # Nobody refers to the subscription; it works on.
            gc.collect()
            await all_.board.submit(tasks(1, n))
            await eventually(lambda: len(all_.account.count("claimed")) == n + 1)  # noqa: B023
            stream.cancel()
            await asyncio.wait({stream})
            del stream
            await board._intakes.finished()
            await all_.board.cancel(ids(n + 1))
            await parked(all_, 0)
        await eventually(lambda: claimers() == before)
        channels: Any = hub._channels
        assert {} == channels._wanted


# -- cancellation --------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["waiting", "answered"])
async def test_claims_of_an_inbox_cancelled_at_each_await(moment: Moment) -> None:
    """What was claimed or handed over goes back, and the inbox can be used again, and left."""

    class Listener:
        def woken(self) -> None:
            ready.set()

        def due(self, seconds: float) -> None: ...

        def delivered(self, claims: list[rxd.Claim[Any]], age: float) -> None:
            delivered.extend(claims)

        def cancelled(self, tokens: Any) -> None: ...

    async with field() as all_:
        cancelled = True
        n = 0
        while cancelled:
            n += 1
            delivered: list[rxd.Claim[Any]] = []
            ready = asyncio.Event()
            async with rxd.connect(all_.server.target.safe) as hub:
                board: Board = hub.board("b")
                inbox = board._intakes.inbox(None, "w", 3600.0)
                listening = inbox.listen(Listener())
                await ready.wait()
                await all_.board.submit(tasks(3, 3 * n))
                mine = [task.id for task in tasks(3, 3 * n)]
                work = cancelled_at(inbox.claim(5, park=5), n, moment)
                await asyncio.wait({work})
                cancelled = work.cancelled()
                await board._intakes.finished()
                batch = await inbox.claim(5, park=5)
                held = [claim.task.id for claim in (*batch.claims, *batch.handed, *delivered)]
                if not cancelled:
                    held += [claim.task.id for claim in work.result().claims]
                assert Counter(mine) == Counter(held), n
                await all_.board.cancel(mine)
                listening.dispose()
                inbox.leave()
                await board._intakes.finished()
            assert 0 == await all_.parked()
            counts = await all_.board.counts()
            assert (0, 0) == (counts.ready, counts.claimed)
        assert n > 1


async def test_streams_cancelled_in_any_round(monkeypatch: pytest.MonkeyPatch) -> None:
    """After n rounds of the loop a stream ends, wherever its delivery is; another takes over."""
    never_polls(monkeypatch)
    async with field() as all_:
        for n in range(40):
            async with all_.hand(for_ever, lease=3600.0) as first:
                await all_.board.submit(tasks(2, 2 * n))
                for _ in range(n):
                    await asyncio.sleep(0)
                assert first.stream is not None
                first.stream.cancel()
                async with all_.hand(start=False) as second:
                    second.start(until="joined", lease=3600.0)
                    await eventually(lambda: all_.account.finished(ids(2 * n + 2)))  # noqa: B023
        assert all_.account.settled_once(ids(80))
        assert all_.uncounted()


# -- programs ------------------------------------------------------------------------------------


def run_program(source: str, *arguments: str) -> subprocess.Popen[bytes]:
    """Run *source* in a process."""
    return subprocess.Popen(
        [*(sys.executable, "-c", textwrap.dedent(source)), *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )


async def test_loop_that_closes_in_the_middle() -> None:
    """A program ends without closing its hub; what was handed to it is done by others in time."""
    program = """
        import asyncio, sys
        import rxdispatch as rxd
        from rxdispatch import operators as ops
        from rxdispatch.clock import LoopScheduler

        async def handler(task):
            await asyncio.sleep(0.001)

        async def main():
            got = asyncio.Event()
            hub = rxd.connect(sys.argv[1])
            await hub.__aenter__()
            board = hub.board("b")
            stream = board.claims(lease=30.0).pipe(ops.execute(handler), ops.settle(board))
            scheduler = LoopScheduler(asyncio.get_running_loop())
            stream.subscribe(lambda _: got.set(), scheduler=scheduler)
            await got.wait()

        asyncio.run(main())
    """
    async with field() as all_:
        process = run_program(program, all_.server.target.safe)
        try:
            await parked(all_, 1)
            n = 0
            while process.poll() is None:
                await all_.board.submit(tasks(2, n))
                n += 2
                await asyncio.sleep(0.001)
            out = process.stdout.read().decode() if process.stdout else ""
            assert 0 == process.returncode, out
            assert "Traceback" not in out, out
        finally:
            process.kill()
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        async with all_.hand(lease=30.0):
            # Handlers that had begun were cancelled with the loop: their leases of 30 s lapse.
            late = await eventually(lambda: len(all_.account.count("done")) >= n - 16)
        assert late < DELIVERY_LEASE + 2 + NOISE
        assert all_.uncounted()


async def test_forked_child_keeps_the_inbox_open() -> None:
    """A worker dies, its child does not: the server still sees a listener, once."""
    program = """
        import asyncio, os, sys, time
        import rxdispatch as rxd
        from rxdispatch import operators as ops

        async def handler(task):
            pid = os.fork()
            if pid == 0:
                time.sleep(60)
                os._exit(0)
            print(pid, flush=True)

        async def main():
            async with rxd.connect(sys.argv[1]) as hub:
                board = hub.board("b")
                await rxd.run(board.claims().pipe(ops.execute(handler), ops.settle(board)))

        asyncio.run(main())
    """
    async with field(max_crashes=0) as all_:
        process = run_program(program, all_.server.target.safe)
        child = 0
        try:
            await parked(all_, 1)
            await all_.board.submit(tasks(1))
            await all_.all_done(ids(1))
            assert process.stdout is not None
            child = int(await asyncio.to_thread(process.stdout.readline))
            process.kill()
            process.wait()
            async with all_.hand():
                await all_.board.submit(tasks(40, 1))
                assert await all_.all_done(ids(41)) < DELIVERY_LEASE + 2 + NOISE
                # The dead worker gets nothing more.
                undelivered = all_.account.count("undelivered")
                await all_.board.submit(tasks(40, 41))
                await all_.all_done(ids(81))
                assert undelivered == all_.account.count("undelivered")
        finally:
            process.kill()
            process.wait()
            if child:
                os.kill(child, signal.SIGKILL)
            if process.stdout is not None:
                process.stdout.close()
        assert all_.uncounted()


# -- servers -------------------------------------------------------------------------------------


async def test_server_restarts_while_tasks_flow(tmp_path: Path) -> None:
    """It restarts five times: workers park again, and no task is lost or counted."""
    async with lasting("valkey") as server, rxd.connect(server.target.safe) as hub:
        board: Board = hub.board("b", max_crashes=0, remember=60.0)
        plans = [orders(server.target, "b", tmp_path, name, lease=30.0) for name in "ab"]
        with Worker(plans[0]) as a, Worker(plans[1]) as b:

            async def two() -> bool:
                return await parked_workers(hub, "b") == 2

            await eventually(two)
            submitted = 0

            async def flow(count: int) -> None:
                nonlocal submitted
                for _ in range(count):
                    batch: list[rxd.Task[Any]] = [
                        rxd.Task({"do": "sleep", "seconds": 0.001}, id=f"t{submitted + i}")
                        for i in range(2)
                    ]
                    while True:
                        try:
                            await board.submit(batch)
                        except rxd.StoreUnavailableError:
                            continue
                        break
                    submitted += 2

            for _ in range(5):
                flowing = asyncio.create_task(flow(40))
                done = (await board.counts()).done
                target = done + 20

                async def some(target: int = target) -> bool:
                    return (await board.counts()).done >= target

                await eventually(some)
                server.kill()
                server.start()
                await server.answers()
                await flowing
            await asyncio.wait_for(board.join(), 30.0)
            counts = await board.counts()
            assert (submitted, 0) == (counts.done, counts.dead)
            starts = set(a.tasks("start") + b.tasks("start"))
            assert {f"t{i}" for i in range(submitted)} == starts
            await eventually(two)
            assert None is a.process.poll() is b.process.poll()


async def test_board_in_memory_has_no_deliveries() -> None:
    """The same operators claim from it, and a cancel reaches a handler without a renewal."""
    async with rxd.connect("memory://") as hub:
        board: Board = hub.board("b")
        started: list[str] = []
        cancelled: list[str] = []

        async def handler(task: rxd.Task[Any]) -> None:
            started.append(task.id)
            if task.payload % 10 == 0:
                try:
                    await asyncio.Event().wait()
                except asyncio.CancelledError:
                    cancelled.append(task.id)
                    raise

        streams = [
            asyncio.create_task(
                rxd.run(
                    board.claims(lease=3600.0).pipe(
                        ops.execute(handler, max_concurrent=8), ops.settle(board)
                    )
                )
            )
            for _ in range(2)
        ]
        await board.submit(tasks(100))
        await eventually(lambda: len(started) == 100)
        stuck = ids(100)[::10]
        assert 0 == board.stats.undelivered
        await board.cancel(stuck)
        await eventually(lambda: Counter(stuck) == Counter(cancelled))
        assert (90, 10) == ((await board.counts()).done, (await board.counts()).dead)
        for stream in streams:
            stream.cancel()
        await asyncio.wait(streams)


def test_disposal_after_the_loop_has_ended() -> None:
    """It does nothing, and raises nothing."""

    async def subscribed() -> Any:
        async with valkey_server() as server:
            hub = await rxd.connect(server.target.safe).__aenter__()
            board: Board = hub.board("b")
            subscription = board.claims().subscribe(
                lambda _: None, scheduler=LoopScheduler(asyncio.get_running_loop())
            )

            async def one() -> bool:
                return await parked_workers(hub, "b") == 1

            await eventually(one)
            # The hub is not closed in order.
            channels: Any = hub._channels
            await channels.close()
            await hub.client.close()
            return subscription

    asyncio.run(subscribed()).dispose()


async def test_confirmation_cancelled_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task goes back, and is handed over again."""
    never_polls(monkeypatch)
    left = 3

    def factory(loop: asyncio.AbstractEventLoop, coro: Any, **options: Any) -> asyncio.Task[Any]:
        nonlocal left
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **options)
        if left and "_confirm" in coro.__qualname__:
            left -= 1
            task.cancel()
        return task

    async with field() as all_, all_.hand(lease=3600.0):
        asyncio.get_running_loop().set_task_factory(factory)
        await all_.board.submit(tasks(1))
        await all_.all_done(ids(1))
        asyncio.get_running_loop().set_task_factory(None)
        assert 0 == left
        assert {"t0": 3} == all_.account.count("released")
        assert all_.uncounted()
