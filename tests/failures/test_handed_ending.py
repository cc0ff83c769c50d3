"""Streams that end while something is handed to them, and workers that leave in order."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx

import rxdispatch as rxd
from rxdispatch import operators as ops
from rxdispatch.clock import LoopScheduler
from tests.failures.fleet import eventually
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
from tests.failures.split_proxy import SplitProxy

PATIENT = rxd.Settings(store=rxd.StoreSettings(timeout=60.0, attempt_timeout=30.0))


def settled() -> Any:
    """Settle outcomes of several boards."""

    async def settle(outcome: rxd.Outcome[Any, Any]) -> None:
        settlement = outcome.settlement()
        if settlement is not None:
            await outcome.claim._origin.board.settle([settlement])

    return ops.map_async(settle)


async def told(all_: Field) -> None:
    """Tell all workers that there may be something to claim."""
    call = all_.hub.client.call
    for inbox in await call("inboxes", "PUBSUB", "CHANNELS", "*inbox:*"):
        await call("tell", "PUBLISH", inbox, b"w")


# -- disposal ------------------------------------------------------------------------------------


@pytest.mark.parametrize("replies", [False, True], ids=["request", "reply"])
async def test_disposed_while_its_claim_is_under_way(
    replies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The claim executes afterwards, or has executed; the task goes to another worker at once."""
    never_polls(monkeypatch)
    async with (
        field() as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(for_ever, target=proxy.target, settings=PATIENT, lease=3600.0) as first,
    ):
        gate = proxy.hold(b"EVALSHA", replies=replies)
        await told(all_)
        await gate.reached()
        await first.stop()
        await all_.board.submit(tasks(4))
        async with all_.hand(start=False) as second:
            second.start()
            gate.open()
            await all_.all_done(ids(4))
            await first.board._intakes.finished()
            assert Counter(ids(4)) == Counter(second.ended)
        assert [] == first.started
        assert all_.uncounted()
        assert not all_.account.count("undelivered")


@pytest.mark.parametrize("replies", [False, True], ids=["request", "reply"])
async def test_disposed_while_its_confirmation_is_under_way(
    replies: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The handler is cancelled and the task given back, uncounted, although it is confirmed."""
    never_polls(monkeypatch)
    async with (
        field() as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(for_ever, target=proxy.target, settings=PATIENT, lease=3600.0) as first,
        all_.hand(start=False) as second,
    ):
        gate = proxy.hold(b"EVALSHA", replies=replies)
        await all_.board.submit(tasks(1))
        await gate.reached()
        await first.stop()
        gate.open()
        await first.board._intakes.finished()
        second.start()
        await all_.all_done(ids(1))
        assert ["t0"] == second.ended
        assert all_.uncounted()


async def test_disposed_while_a_delivery_is_in_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was handed over and not read goes back by the leaving, to a worker that is parked."""
    never_polls(monkeypatch)
    async with (
        field() as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(for_ever, target=proxy.target, settings=PATIENT) as first,
    ):
        proxy.stall("messages")
        await all_.board.submit(tasks(3))
        await eventually(lambda: proxy.waiting)
        async with all_.hand() as second:
            await first.stop()
            await all_.all_done(ids(3))
            assert Counter(ids(3)) == Counter(second.ended)
        proxy.resume()
        await first.board._intakes.finished()
        assert [] == first.started
        assert all_.uncounted()
        assert not all_.account.count("undelivered")


async def test_disposed_in_the_handler_of_a_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """A subscriber disposes the stream within ``on_next``; the other tasks go back at once."""
    never_polls(monkeypatch)
    async with field() as all_, all_.hand(start=False) as first:
        got: list[str] = []

        def take(claim: rxd.Claim[Any]) -> None:
            got.append(claim.task.id)
            subscription.dispose()
            claim._give_back()

        subscription = first.board.claims(prefetch=8).subscribe(
            take, scheduler=LoopScheduler(asyncio.get_running_loop())
        )

        async def parked() -> bool:
            return await all_.parked() == 1

        await eventually(parked)
        await all_.board.submit(tasks(8))
        await eventually(lambda: got)
        async with all_.hand() as second:
            await all_.all_done(ids(8))
            assert Counter(ids(8)) == Counter(second.ended)
        assert 1 == len(got)
        assert all_.uncounted()


async def test_take_ends_a_parked_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """With ``take(3)`` below a parked worker, the rest of a delivery goes to another worker."""
    never_polls(monkeypatch)
    async with field() as all_, all_.hand(start=False) as first:
        claims = first.board.claims(prefetch=8).pipe(rx.take(3))
        first.stream = asyncio.create_task(rxd.run(first.pipeline(claims, 8)))

        async def parked() -> bool:
            return await all_.parked() == 1

        await eventually(parked)
        await all_.board.submit(tasks(8))
        await eventually(lambda: len(first.ended) == 3)
        async with all_.hand() as second:
            await all_.all_done(ids(8))
            assert 5 == len(second.ended)
        assert Counter(ids(8)) == all_.runs()
        assert all_.uncounted()


# -- leaving in order ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["disposed", "drained"])
async def test_leaving_while_tasks_flow(how: str) -> None:
    """Workers come and go; nothing is late, nothing runs twice, and nothing is counted."""

    async def short(_: rxd.Task[Any]) -> None:
        await asyncio.sleep(0.005)

    async with field(max_crashes=0) as all_, all_.hand(short, name="stays", most=2):
        flowing = True
        submitted = 0

        async def flow() -> None:
            nonlocal submitted
            while flowing:
                await all_.board.submit(tasks(2, submitted))
                submitted += 2
                await asyncio.sleep(0.002)

        flow_task = asyncio.create_task(flow())
        for n in range(8):
            async with all_.hand(short, name=f"goes{n}", most=2, start=False) as hand:
                hand.start(2)
                await eventually(lambda: len(hand.ended) > 10)
                if how == "drained":
                    await hand.board._intakes.drain(10.0, asyncio.Event())
        flowing = False
        await flow_task
        assert await all_.all_done(ids(submitted)) < DELIVERY_LEASE
        assert all_.uncounted()
        assert not all_.account.count("undelivered")
        if how == "drained":
            assert Counter(ids(submitted)) == all_.runs()
            assert not [i for hand in all_.hands for i in hand.cancelled if hand.name != "stays"]


async def test_sigterm_of_a_worker_process_while_tasks_flow(tmp_path: Path) -> None:
    """``rxdispatch worker`` ends its tasks and leaves; another worker goes on without a pause."""
    (tmp_path / "my_handlers.py").write_text(
        textwrap.dedent(
            """
            import asyncio
            import pathlib

            async def handle(task):
                with open(pathlib.Path(__file__).parent / "runs", "a") as runs:
                    runs.write(task.id + "\\n")
                await asyncio.sleep(0.01)
            """
        )
    )
    runs = tmp_path / "runs"

    def ran() -> list[str]:
        return runs.read_text().split() if runs.exists() else []

    async with field(max_crashes=0) as all_:
        command = [
            *(sys.executable, "-m", "rxdispatch.cli", "worker", "my_handlers:handle"),
            *("--board", "b", "--url", all_.server.target.safe, "--app-dir", str(tmp_path)),
        ]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:

            async def parked() -> bool:
                return await all_.parked() == 1

            await eventually(parked)
            async with all_.hand(name="stays") as stays:
                submitted = 0
                while len(ran()) < 20:
                    await all_.board.submit(tasks(2, submitted))
                    submitted += 2
                process.send_signal(signal.SIGTERM)
                while process.poll() is None:
                    await all_.board.submit(tasks(2, submitted))
                    submitted += 2
                    await asyncio.sleep(0.001)
                assert 0 == process.returncode
                assert await all_.all_done(ids(submitted)) < DELIVERY_LEASE
                assert Counter(ids(submitted)) == Counter([*ran(), *stays.started])
        finally:
            process.kill()
            process.wait()
        assert all_.uncounted()
        assert not all_.account.count("undelivered")


# -- streams that end by themselves --------------------------------------------------------------


@pytest.mark.parametrize("until", ["idle", "joined"])
async def test_streams_with_an_end_beside_parked_workers(until: Any) -> None:
    """Their streams complete, also if other workers have run the tasks."""
    async with field() as all_, all_.hand(), all_.hand():
        for n in range(20):
            await all_.board.submit(tasks(20, 20 * n))
            async with all_.hand(start=False) as hand:
                hand.start(until=until)
                assert hand.stream is not None
                async with asyncio.timeout(30.0):
                    await hand.stream
                counts = await all_.board.counts()
                assert 0 == counts.ready
                if until == "joined":
                    assert 20 * (n + 1) == counts.done
        await all_.all_done(ids(400))
        assert Counter(ids(400)) == all_.runs()
        assert all_.uncounted()


async def test_joined_stream_takes_what_is_handed_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream until "joined" parks, and ends once what was handed to it is settled."""
    never_polls(monkeypatch)
    async with field() as all_, all_.hand(start=False) as hand:
        await all_.board.submit(tasks(1, delay=1.0))
        hand.start(until="joined")

        async def parked() -> bool:
            return await all_.parked() == 1

        await eventually(parked)
        await all_.board.submit(tasks(30, 1))
        assert hand.stream is not None
        async with asyncio.timeout(30.0):
            await hand.stream
        assert 31 == (await all_.board.counts()).done
        assert Counter(ids(31)) == all_.runs()
        assert 0 == await all_.parked()


# -- two boards ----------------------------------------------------------------------------------


async def test_two_boards_share_the_room_of_one_execute(monkeypatch: pytest.MonkeyPatch) -> None:
    """What finds no room goes back once, and another worker does it; nothing goes to and fro."""
    never_polls(monkeypatch)
    release = asyncio.Event()

    async def waits(_: rxd.Task[Any]) -> None:
        await release.wait()

    async with field() as all_, all_.hand(waits, name="both", start=False) as both:
        other = both.hub.board("other")
        claims = reactivex.merge(
            both.board.claims(worker="both"),
            other.claims(worker="both"),
        )
        both.stream = asyncio.create_task(
            rxd.run(claims.pipe(ops.execute(both.handler, max_concurrent=1), settled()))
        )

        async def parked() -> bool:
            return await all_.parked() == 1 == await parked_workers(all_.hub, "other")

        await eventually(parked)
        # The other board fills the only slot, which this one does not know of.
        await all_.hub.board("other").submit(rxd.Task(0, id="fills"))
        await eventually(lambda: both.started == ["fills"])
        await all_.board.submit(tasks(1))
        await eventually(lambda: all_.account.count("released"))
        async with all_.hand(name="free") as free:
            await all_.all_done(ids(1))
            assert ids(1) == free.ended
            for n in range(1, 10):
                await all_.board.submit(tasks(1, n))
            await all_.all_done(ids(10))
        assert sum(all_.account.count("released").values()) <= 2
        release.set()
        await eventually(lambda: both.ended == ["fills"])
        assert all_.uncounted()


async def test_long_tasks_do_not_wait_beside_an_idle_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A worker that was fast until now has more handed to it than it can start; that goes back."""
    never_polls(monkeypatch)

    async def work(task: rxd.Task[Any]) -> None:
        await (asyncio.Event().wait() if task.id.startswith("long") else asyncio.sleep(0.001))

    async with field() as all_, all_.hand(work, name="fast", most=4) as fast:
        await all_.board.submit(tasks(1000))
        await all_.all_done(ids(1000))
        async with all_.hand(work, name="idle", most=4) as idle:
            for n in range(8):
                await all_.board.submit(rxd.Task(0, id=f"long{n}"))
            await eventually(lambda: fast.running + idle.running == 8)
            # Nothing goes to and fro.
            released = all_.account.count("released")
            assert max((released[f"long{n}"] for n in range(8)), default=0) <= 2
