"""Hand-over with messages, replies and requests that are lost, held, doubled or cut."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from reactivex import Subject

import rxdispatch as rxd
from rxdispatch import operators as ops
from tests.failures.fleet import NOISE, eventually
from tests.failures.handed import (
    DELIVERY_LEASE,
    Field,
    field,
    for_ever,
    ids,
    messages_read,
    never_polls,
    tasks,
)
from tests.failures.split_proxy import Part, SplitProxy

PATIENT = rxd.Settings(store=rxd.StoreSettings(timeout=60.0, attempt_timeout=30.0))
HURRIED = rxd.Settings(store=rxd.StoreSettings(timeout=5.0, attempt_timeout=0.4))

#: Seconds of a lease that no test sees renewed.
LONG = 3600.0


async def most_claimed(all_: Field, seen: list[int]) -> None:
    """Add how many tasks are claimed, again and again."""
    while True:
        seen.append((await all_.board.counts()).claimed)


async def subscribers(all_: Field) -> int:
    """Return how many inboxes somebody listens to."""
    found = await all_.hub.client.call("channels", "PUBSUB", "CHANNELS", "*inbox:*")
    return len(found)


# -- cancel --------------------------------------------------------------------------------------


async def test_cancel_needs_no_renewal(monkeypatch: pytest.MonkeyPatch) -> None:
    """It reaches a handler whose task was handed over, or claimed, soon and without a renewal."""
    never_polls(monkeypatch)
    took: list[float] = []
    async with field() as all_, all_.hand(for_ever, lease=LONG, most=8) as hand:
        for n in range(100):
            await all_.board.submit(tasks(1, n))
            await eventually(lambda: len(hand.started) == n + 1)  # noqa: B023 - called at once
            began = time.perf_counter()
            await all_.board.cancel([f"t{n}"])
            while len(hand.cancelled) <= n:
                await asyncio.sleep(0.001)
            took.append(time.perf_counter() - began)
        assert ids(100) == hand.cancelled
        await eventually(lambda: len(hand.outcomes) == 100)
        assert {"lost"} == {status for _, status in hand.outcomes}
        assert ids(100) == sorted(all_.account.count("dead"), key=lambda i: int(i[1:]))
    # A renewal would come after a third of the lease.
    assert statistics.median(took) < 0.1
    assert max(took) < 0.1 + NOISE


async def test_cancel_overtakes_the_reply_to_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled while the reply that has it is on its way is not worked on."""
    never_polls(monkeypatch)
    async with field() as all_, SplitProxy(all_.server.target) as proxy:
        await all_.board.submit(tasks(2))
        async with all_.hand(for_ever, target=proxy.target, start=False, settings=PATIENT) as hand:
            gate = proxy.hold(b"EVALSHA", replies=True)
            hand.start(lease=LONG)
            await gate.reached()

            async def listens() -> bool:
                return await subscribers(all_) == 1 and (await all_.board.counts()).claimed == 2

            await eventually(listens)
            await all_.board.cancel(["t0"])
            await messages_read(hand)
            gate.open()
            await eventually(lambda: "t1" in hand.started)
            await eventually(lambda: hand.running == 1)
            assert ["t1"] == hand.started
            assert {"t0": 1} == all_.account.count("dead")


async def test_cancel_overtakes_the_reply_to_a_claim_by_id() -> None:
    """A task that is cancelled meanwhile does not reach the subscriber of ``claim_each``."""
    async with (
        field() as all_,
        SplitProxy(all_.server.target) as proxy,
        rxd.connect(proxy.target.safe, settings=PATIENT) as hub,
    ):
        await all_.board.submit(tasks(2))
        board: rxd.Board[Any] = hub.board(all_.board.name)
        named: Subject[str] = Subject()
        claims: list[rxd.Claim[Any]] = []
        with named.pipe(ops.claim_each(board, lease=LONG)).subscribe(claims.append):
            await eventually_listens(all_)
            gate = proxy.hold(b"EVALSHA", replies=True)
            for name in ids(2):
                named.on_next(name)
            await gate.reached()
            while (await all_.board.counts()).claimed < 2:
                await asyncio.sleep(0.001)
            await all_.board.cancel(["t0"])
            channels: Any = hub._channels
            await channels.barrier(10.0)
            gate.open()
            await eventually(lambda: bool(claims))
            assert ["t1"] == [claim.task.id for claim in claims]
            assert 1 == board.stats.lost
            await board.settle(claim.done() for claim in claims)
        await board._intakes.finished()


async def eventually_listens(all_: Field) -> None:
    """Wait until somebody listens to an inbox."""

    async def listens() -> bool:
        return await subscribers(all_) == 1

    await eventually(listens)


async def test_cancel_of_what_waits_for_its_confirmation(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task that is cancelled while its confirmation is on its way ends without a renewal."""
    never_polls(monkeypatch)
    async with (
        field() as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(for_ever, target=proxy.target, settings=PATIENT, lease=LONG) as hand,
    ):
        gate = proxy.hold(b"EVALSHA")
        await all_.board.submit(tasks(1))
        await gate.reached()
        await all_.board.cancel(["t0"])
        await eventually(lambda: hand.cancelled == hand.started and hand.running == 0)
        gate.open()
        await eventually(lambda: all_.account.count("dead"))
        await hand.board._intakes.finished()
        assert 0 == hand.running


# -- times ---------------------------------------------------------------------------------------


async def test_due_time_overtakes_the_reply_to_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    """A timekeeper that is told while its claim is under way claims at that time."""
    never_polls(monkeypatch)
    async with (
        field() as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(target=proxy.target, settings=PATIENT) as hand,
    ):
        gate = proxy.hold(b"EVALSHA", replies=True)
        # It claims again, as if it had been told.
        inbox = (await all_.hub.client.call("inboxes", "PUBSUB", "CHANNELS", "*inbox:*"))[0]
        await all_.hub.client.call("tell", "PUBLISH", inbox, b"w")
        await gate.reached()
        await all_.board.submit(tasks(1, delay=0.2))
        await messages_read(hand)
        gate.open()
        await all_.all_done(ids(1))
        assert all_.uncounted()


async def test_due_time_reaches_a_parked_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many parked workers one comes for a scheduled task, without a poll."""
    never_polls(monkeypatch)
    async with field() as all_, all_.hand(), all_.hand(), all_.hand():
        for n in range(10):
            await all_.board.submit(tasks(1, n, delay=0.05))
            await eventually(lambda: all_.account.finished(ids(n + 1)))  # noqa: B023
        assert Counter(ids(10)) == all_.runs()


# -- deliveries ----------------------------------------------------------------------------------


def drops(first: int, count: int, seen: list[bytes]) -> Any:
    """Return a change of messages that drops some deliveries, counted from 0."""

    def change(data: bytes) -> Iterable[bytes]:
        if not data.startswith(b"d"):
            return (data,)
        seen.append(data)
        return () if first <= len(seen) - 1 < first + count else (data,)

    return change


async def test_gap_is_noticed_at_the_next_delivery(monkeypatch: pytest.MonkeyPatch) -> None:
    """The delivery before it was lost: the worker claims at once, and each task runs once."""
    never_polls(monkeypatch)
    seen: list[bytes] = []
    async with (
        field() as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(target=proxy.target, prefetch=64, most=64),
    ):
        for n in range(0, 40, 2):
            seen.clear()
            proxy.tamper(drops(0, 1, seen))
            await all_.board.submit(tasks(1, n))
            await eventually(lambda: seen)
            await all_.board.submit(tasks(1, n + 1))
            await eventually(lambda: all_.account.finished(ids(n + 2)))  # noqa: B023
        assert all_.account.settled_once(ids(40))
        assert Counter(ids(40)) == all_.runs()
        assert all_.uncounted()


async def test_lost_delivery_lapses_uncounted() -> None:
    """Nobody reads it, and no other comes: it is late by the delivery lease + 2 s at most."""
    seen: list[bytes] = []
    async with (
        field(max_crashes=0) as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(target=proxy.target),
    ):
        proxy.tamper(drops(0, 1, seen))
        await all_.board.submit(tasks(1))
        assert await all_.all_done(ids(1)) < DELIVERY_LEASE + 2 + NOISE
        assert {"t0": 1} == all_.runs()
        assert all_.uncounted()


async def test_doubled_deliveries_run_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message comes twice, or late once more; each task runs once."""
    never_polls(monkeypatch)
    old: list[bytes] = []

    def change(data: bytes) -> Iterable[bytes]:
        if data.startswith(b"d"):
            old.append(data)
            return (data, data, *old[-3:-1])
        return (data,)

    async with (
        field() as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(target=proxy.target, prefetch=8),
    ):
        proxy.tamper(change)
        for n in range(50):
            await all_.board.submit(tasks(1, n))
        await all_.all_done(ids(50))
        assert Counter(ids(50)) == all_.runs()
        assert len(old) > 3


async def _over_prefetch(all_: Field, proxy: SplitProxy, prefetch: int, trouble: Any) -> None:
    seen: list[int] = []
    watch = asyncio.create_task(most_claimed(all_, seen))
    for n in range(60):
        trouble(proxy, n)
        await all_.board.submit(tasks(1, n))
        await asyncio.sleep(0.01)
    proxy.heal()
    await all_.all_done(ids(60), 60.0)
    watch.cancel()
    await asyncio.wait({watch})
    assert max(seen) <= prefetch
    assert max(Counter(all_.runs()).values()) == 1
    assert all_.uncounted()


def lose_deliveries(proxy: SplitProxy, n: int) -> None:
    """Lose the messages of two submits of seven."""
    if n % 7 == 0:
        proxy.tamper(lambda data: () if data.startswith(b"d") else (data,))
    if n % 7 == 2:
        proxy.tamper(None)


def lose_replies(proxy: SplitProxy, n: int) -> None:
    """Lose the reply to one request of five submits."""
    if n % 5 == 0:
        proxy.drop_replies(1, b"EVALSHA")


def lose_both(proxy: SplitProxy, n: int) -> None:
    """Lose messages and replies."""
    lose_deliveries(proxy, n)
    lose_replies(proxy, n)


@pytest.mark.parametrize("trouble", [lose_deliveries, lose_replies, lose_both])
async def test_nobody_is_over_its_prefetch(trouble: Any) -> None:
    """Whatever is lost, the board never has more claims of a worker than its prefetch."""

    async def slow(_: rxd.Task[Any]) -> None:
        await asyncio.sleep(0.02)

    async with (
        field(max_crashes=0) as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(
            slow, target=proxy.target, settings=HURRIED, prefetch=3, most=8, name="a", lease=30.0
        ),
    ):
        await _over_prefetch(all_, proxy, 3, trouble)


# -- connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part", ["messages", "commands", "both"])
async def test_cut_connections_lose_nothing(part: Part) -> None:
    """While deliveries flow, connections of the only worker are cut again and again."""
    async with (
        field(max_crashes=0) as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(target=proxy.target, settings=HURRIED, lease=30.0),
    ):
        late = 0.0
        for n in range(30):
            await all_.board.submit(tasks(1, n))
            if n % 3 == 0:
                proxy.cut_part(part)
            late = max(late, await eventually(lambda: all_.account.finished(ids(n + 1))))  # noqa: B023
        assert late < DELIVERY_LEASE + 2 + NOISE
        assert all_.account.settled_once(ids(30))
        assert all_.uncounted()
        # What ran twice was not confirmed, as its first confirmation was cut off.
        again = {i for i, n in all_.runs().items() if n > 1}
        assert again <= all_.account.count("undelivered").keys()


@pytest.mark.parametrize("part", ["messages", "commands", "both"])
async def test_cut_off_worker_is_replaced(part: Part) -> None:
    """What was handed to a worker behind a stalled connection goes to another one in time."""
    async with (
        field(max_crashes=0) as all_,
        SplitProxy(all_.server.target) as proxy,
        all_.hand(target=proxy.target, settings=PATIENT, name="a", lease=30.0),
    ):
        await all_.board.submit(tasks(8))
        await all_.all_done(ids(8))
        proxy.stall(part)
        await all_.board.submit(tasks(1, 8))
        async with all_.hand(name="b", lease=30.0) as b:
            # By a, if it polls, or by b, when the delivery has lapsed.
            assert await all_.all_done(ids(9)) < DELIVERY_LEASE + 2 + NOISE
            if part != "messages":
                assert ["t8"] == b.ended
            await all_.board.submit(tasks(8, 9))
            await eventually(lambda: all_.account.finished(ids(17)))
            proxy.resume()
            await all_.board.submit(tasks(8, 17))
            await eventually(lambda: all_.account.finished(ids(25)))
        assert all_.account.settled_once(ids(25))
        assert all_.uncounted()


async def test_killed_subscription_while_deliveries_flow() -> None:
    """The server ends the Pub/Sub connection of the worker; it moves to another one."""

    async def connections(all_: Field) -> set[bytes]:
        clients = await all_.hub.client.call("list", "CLIENT", "LIST", "TYPE", "pubsub")
        return {line.split()[0].partition(b"=")[2] for line in clients.splitlines()}

    async with field(max_crashes=0) as all_:
        own = await connections(all_)
        async with all_.hand(lease=30.0) as hand:
            submitted = killed = 0
            while killed < 5:
                await all_.board.submit(tasks(5, submitted))
                submitted += 5
                for client in await connections(all_) - own:
                    await all_.hub.client.call("kill", "CLIENT", "KILL", "ID", client)
                    killed += 1
            assert await all_.all_done(ids(submitted)) < DELIVERY_LEASE + 2 + NOISE
            assert Counter(ids(submitted)) == Counter(hand.started)
            assert all_.uncounted()
