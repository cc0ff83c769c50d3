"""``claim``: when it claims, how much, and what happens to claims that nobody takes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.claim import Claim
from rxdispatch.errors import ConfigError
from rxdispatch.operators.tasks._claim import claim
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.relay import Relay
from rxdispatch.streams import run
from rxdispatch.task import Task
from rxdispatch.testing import Probe
from tests.operators.flow.runs import to_list
from tests.operators.tasks.places import Board, Hand, filled, ids, marks, place, tasks, turns


def named(logs: list[Any], event: str) -> list[Any]:
    """Return the log entries of *event*."""
    return [entry for entry in logs if entry["event"] == event]


def deaf(board: Board) -> None:
    """Make *board* lose the signals that wake workers."""
    engine: Any = board._engine
    engine._signal = lambda sooner=False: None


# ---------------------------------------------------------------- when it claims


async def test_all_that_is_ready_comes_and_then_the_end() -> None:
    """The best come first; without a valve, the whole prefetch comes at once."""
    board, engine = await filled(3)
    await board.submit(Task(0, id="first", priority=9))
    log = Probe()
    reactivex.empty().pipe(claim(board, worker="me")).subscribe(log)
    await turns()
    assert ["first", "0", "1", "2"] == ids(log.notifications)
    assert "|" == log.notifications[-1]
    assert {"me"} == {item.worker for item in log.notifications[:-1]}
    assert [1000] == engine.sizes("claim")


async def test_a_hint_wakes_it() -> None:
    """A task that is submitted is claimed at the same instant."""
    board, _ = place()
    log = Probe()
    with board.claims().subscribe(log):
        await asyncio.sleep(10.0)
        await board.submit(tasks(2))
        await turns()
        assert [10.0, 10.0] == [when for when, _ in log.timeline]
        await asyncio.sleep(100)
        assert 2 == len(log.timeline)
        board._intakes.give_back(log.notifications)
        await turns()


async def test_items_of_the_source_are_hints() -> None:
    """The value of the items does not matter."""
    board, _ = place()
    hand, log = Hand(), Probe()
    hand.stream().pipe(claim(board)).subscribe(log)
    await asyncio.sleep(3.0)
    await board.submit(tasks(1))
    hand.push("anything")
    await turns()
    assert [3.0] == [when for when, _ in log.timeline]
    hand.complete()
    await turns()
    assert "|" == log.notifications[-1]


async def test_a_hint_during_a_claim_is_not_forgotten() -> None:
    """A task that is submitted while an empty reply is on its way is claimed right after."""
    board, engine = place()
    engine.after["claim"] = 1.0
    log = Probe()
    subscription = board.claims().subscribe(log)
    await asyncio.sleep(0.5)
    await board.submit(tasks(1))
    await asyncio.sleep(2)
    assert [2.0] == [when for when, _ in log.timeline]
    subscription.dispose()


async def test_a_lost_hint_costs_two_seconds() -> None:
    """The stream also polls, so a lost hint costs no more than that."""
    board, _ = place()
    deaf(board)
    log = Probe()
    with board.claims().subscribe(log):
        for n in range(20):
            await asyncio.sleep(3.3)
            before = asyncio.get_running_loop().time()
            await board.submit(Task(0))
            await asyncio.sleep(2.0)
            assert n + 1 == len(log.timeline)
            assert before < log.timeline[-1][0] <= before + 2.0


async def test_an_idle_worker_asks_seldom() -> None:
    """An idle worker sends less than two commands a second."""
    board, engine = place()
    with board.claims().subscribe(Probe()):
        await asyncio.sleep(100)
    assert 50 <= len(engine.calls) <= 105


@pytest.mark.parametrize("delay", [0.05, 0.5, 1.0, 7.0, 100.0])
async def test_scheduled_tasks_start_on_time(delay: float) -> None:
    """A task starts at most 50 ms late, even if its hint is lost."""
    for lost in (False, True):
        board, _ = place()
        await board.submit(Task(0, delay=delay))
        due = asyncio.get_running_loop().time() + delay
        if lost:
            deaf(board)
        log = Probe()
        with board.claims().subscribe(log):
            await asyncio.sleep(delay + 0.06)
        assert 1 == len(log.timeline)
        assert due <= log.timeline[0][0] <= due + 0.05


async def test_lapsed_claims_of_others_are_taken_over() -> None:
    """Such tasks are claimed within 2 s of the end of their lease, with a crash counted."""
    board, engine = await filled(1)
    other: Board = MemoryBoard("b", engine=engine)
    held = await other.claim(1, lease=10.0)
    log = Probe()
    with board.claims().subscribe(log):
        await asyncio.sleep(12.0)
        assert 10.0 <= log.timeline[0][0] <= 12.0
        assert (1, 1) == (log.notifications[0].crashes, log.notifications[0].attempt)
        assert [False] == await other.settle([held[0].done()])


# ---------------------------------------------------------------- the end


async def test_until_idle_does_not_wait_for_what_is_scheduled() -> None:
    """The stream ends as soon as nothing is ready."""
    board, _ = await filled(2)
    await board.submit(Task(0, id="later", delay=5.0))
    assert ["0", "1"] == ids(await to_list(board.claims(until="idle")))


async def test_until_idle_reads_more_than_a_prefetch() -> None:
    """The stream goes on as claims are settled."""
    board, _ = await filled(10)
    got: list[str] = []

    def end(item: Claim[Any]) -> None:
        got.append(item.task.id)
        board._intakes.post([item.done()])

    await run(board.claims(until="idle", prefetch=3).pipe(rx.do_action(end)))
    assert [str(n) for n in range(10)] == got


async def test_until_joined_waits_for_all() -> None:
    """The stream waits for delays, retries and the work of others."""
    board, engine = await filled(1)
    await board.submit(Task(0, id="later", delay=50.0))
    other: Board = MemoryBoard("b", engine=engine)
    held = await other.claim(1)
    log = Probe()
    board.claims(until="joined").subscribe(log)
    await asyncio.sleep(20)
    await other.settle([held[0].retry("x", 70.0)])
    await asyncio.sleep(20)
    assert [] == log.timeline
    await asyncio.sleep(60)
    assert ["later", "0"] == ids(log.notifications)
    assert 50.0 <= log.timeline[0][0] <= 50.05
    assert 90.0 <= log.timeline[1][0] <= 90.05
    await board.settle([item.done() for item in log.notifications])
    await asyncio.sleep(5)
    assert (100.0, "|") == log.timeline[-1]


async def test_without_an_end_it_goes_on() -> None:
    """The stream goes on until it is disposed."""
    board, _ = await filled(1)
    log = Probe()
    with board.claims(until="never").subscribe(log):
        await asyncio.sleep(1000)
    assert ["0"] == ids(log.notifications) == ids([log.notifications[-1]])
    await asyncio.sleep(1000)
    assert 1 == len(log.notifications)


async def test_an_error_of_the_source_passes_through() -> None:
    """Claims that were emitted stay held, and the others go back at once."""
    board, _ = await filled(3)
    error = OSError("x")
    hand, log = Hand(), Probe()
    hand.stream().pipe(claim(board, prefetch=2)).subscribe(log)
    await turns()
    hand.fail(error)
    assert error is log.notifications[-1]
    await turns()
    assert (0, 1, 2, 0, 0) == await marks(board)


async def test_an_error_of_the_board_ends_the_stream() -> None:
    """The only exception is a server that is away."""
    board, engine = await filled(3)
    error = RuntimeError("x")
    engine.faults["claim"].append(error)
    log = Probe()
    board.claims().subscribe(log)
    await asyncio.sleep(9)
    assert [error] == log.notifications
    assert 1 == len(engine.calls)


async def test_a_bad_label_is_an_error_of_the_stream() -> None:
    """The board decides which labels are valid."""
    board, _ = await filled(1)
    label: Any = 5
    with pytest.raises(ConfigError, match="worker must be a str of at most 200 characters, got 5"):
        await run(reactivex.empty().pipe(claim(board, worker=label)))


async def test_a_server_that_is_away_is_waited_for() -> None:
    """The stream logs when it waits, and once more when it goes on."""
    board, engine = await filled(1)
    engine.away("claim", 7)
    log = Probe()
    with capture_logs() as logs, board.claims().subscribe(log):
        await asyncio.sleep(10)
        assert ["0"] == ids(log.notifications)
        assert 0.7 <= log.timeline[0][0] <= 3.5
        assert ["claims_waiting", "claims_going_on"] == [entry["event"] for entry in logs]
        assert "b" == logs[0]["board"]
        board._intakes.give_back(log.notifications)
        await turns()


async def test_the_end_waits_for_the_server() -> None:
    """A source that completes while the server is away loses nothing."""
    board, engine = await filled(2)
    engine.away("claim", 3)
    with capture_logs():
        assert ["0", "1"] == ids(await to_list(board.claims(until="idle")))


# ---------------------------------------------------------------- how much


async def test_prefetch_bounds_what_is_unsettled() -> None:
    """Each claim that is settled makes room for another."""
    board, _ = await filled(10)
    log = Probe()
    with board.claims(prefetch=3).subscribe(log):
        for n in range(7):
            await asyncio.sleep(5)
            assert 3 + n == len(log.notifications)
            assert (0, 7 - n, 3, n, 0) == await marks(board)
            await board.settle([log.notifications[n].done()])


async def test_prefetch_is_never_exceeded() -> None:
    """No more claims than that are held, however fast they are settled."""
    board, engine = await filled(400)
    engine.after["claim"] = engine.before["settle"] = 0.002
    most = 0

    async def handler(_: Task[int]) -> None:
        nonlocal most
        await asyncio.sleep(0.0001)
        most = max(most, (await board.counts()).claimed)

    await run(board.claims(until="idle", prefetch=40).pipe(execute(handler), settle(board)))
    assert 16 < most <= 40
    assert (0, 0, 0, 400, 0) == await marks(board)


async def test_a_stalled_consumer_stops_claiming() -> None:
    """The stream holds what it had room for and renews it; the rest is for other workers."""
    board, _ = await filled(50)
    probe = Probe(room=4)
    probe.watch(board.claims(lease=3.0))
    for _ in range(20):
        await asyncio.sleep(5)
        assert (0, 46, 4, 0, 0) == await marks(board)
    assert not any(item.lost for item in probe.notifications)
    probe.open(3)
    await asyncio.sleep(1)
    assert [str(n) for n in range(7)] == ids(probe.notifications)
    probe.dispose()
    assert (0, 43, 7, 0, 0) == await marks(board)


async def test_no_room_no_claim() -> None:
    """The stream polls, so that lapsed leases are swept, but claims nothing."""
    board, engine = await filled(5)
    probe = Probe(room=0)
    probe.watch(board.claims())
    await asyncio.sleep(20)
    probe.dispose()
    assert {0} == set(engine.sizes("claim"))
    assert (0, 5, 0, 0, 0) == await marks(board)


async def _watched(
    board: Board, speed: Callable[[], float], until: float, **options: Any
) -> list[tuple[float, int]]:
    """
    Run handlers that take ``speed()`` seconds; return times, and how many claims were held.

    A claim whose handler has ended is not held any more, although its settlement may still wait.
    """
    seen: list[tuple[float, int]] = []
    loop = asyncio.get_running_loop()
    ended = 0

    async def handler(_: Task[int]) -> None:
        nonlocal ended
        await asyncio.sleep(speed())
        ended += 1

    stream = board.claims(**options).pipe(execute(handler, max_concurrent=4), settle(board))
    with stream.subscribe(Probe()):
        while loop.time() < until:
            await asyncio.sleep(0.01)
            now = await board.counts()
            seen.append((loop.time(), now.claimed - (ended - now.done)))
    await asyncio.sleep(0.1)  # a claim call that is on its way gives its tasks back
    return seen


async def test_fast_handlers_are_claimed_ahead_for() -> None:
    """The stream claims about as many as the handlers take in 50 ms, beyond those that run."""
    board, engine = await filled(5000)
    engine.after["claim"] = 0.005
    seen = await _watched(board, lambda: 0.002, until=2.0)
    # Four at a time, 2 ms each, are 2,000 a second, or 100 in 50 ms.
    assert 50 <= max(held for _, held in seen) <= 150
    assert (await board.counts()).done > 0.9 * 2.0 * 4 / 0.002


async def test_slow_handlers_hold_nothing_that_others_could_run() -> None:
    """The stream holds only the claims that run."""
    board, engine = await filled(100)
    engine.after["claim"] = 0.005
    seen = await _watched(board, lambda: 1.0, until=10.0)
    assert 4 == max(held for _, held in seen)


async def test_handlers_that_slow_down_are_claimed_less_for() -> None:
    """The claims ahead are used up, and no more are claimed ahead."""
    board, engine = await filled(20_000)
    engine.after["claim"] = 0.005
    loop = asyncio.get_running_loop()
    seen = await _watched(board, lambda: 0.002 if loop.time() < 1.0 else 0.5, until=60.0)
    assert 50 <= max(held for when, held in seen if when < 1.0)
    assert 4 == max(held for when, held in seen if when > 50.0)


# ---------------------------------------------------------------- renewal


async def test_claims_are_renewed_at_a_third_of_the_lease_until_settled() -> None:
    """The renewals go on as long as necessary, and not longer."""
    board, engine = await filled(2)
    log = Probe()
    with board.claims(lease=30.0).subscribe(log):
        await asyncio.sleep(3005)
        times = engine.times("renew")
        assert {10.0} == {round(b - a, 3) for a, b in zip([0.0, *times], times, strict=False)}
        assert {2} == set(engine.sizes("renew"))
        await board.settle([log.notifications[0].done()])
        await asyncio.sleep(10)
        assert 1 == engine.sizes("renew")[-1]
        await board.settle([log.notifications[1].release(5000.0)])
        count = len(engine.named("renew"))
        await asyncio.sleep(300)
        assert count == len(engine.named("renew"))
    assert not log.notifications[0].lost


async def test_renewal_outlives_the_subscription() -> None:
    """A consumer may still be working on a claim that it was given."""
    board, engine = await filled(2)
    log = Probe()
    board.claims(lease=3.0, prefetch=1).subscribe(log).dispose()
    await asyncio.sleep(60)
    assert [] == log.notifications
    subscription = board.claims(lease=3.0, prefetch=1).subscribe(log)
    await turns()
    subscription.dispose()
    await asyncio.sleep(60.5)
    assert (0, 1, 1, 0, 0) == await marks(board)
    assert [True] == await board.settle([log.notifications[0].done()])
    count = len(engine.calls)
    await asyncio.sleep(60)
    assert count == len(engine.calls)


async def test_a_settled_claim_is_not_lost_to_a_renewal() -> None:
    """A renewal that begins before the settlement and arrives after it is no loss."""
    board, engine = await filled(1)
    engine.before["renew"] = 1.0
    log = Probe()
    with capture_logs() as logs, board.claims(lease=30.0).subscribe(log):
        for moment in (10.0, 0.5):
            await asyncio.sleep(moment)
        assert [10.0] == engine.times("renew")
        await board.settle([log.notifications[0].done()])
        await asyncio.sleep(60)
    assert not log.notifications[0].lost
    assert [] == logs


async def test_a_claim_that_is_taken_away_is_lost() -> None:
    """The next renewal reports the loss, and its place is free for another claim."""
    board, engine = await filled(2)
    other: Board = MemoryBoard("b", engine=engine)
    log = Probe()
    with capture_logs() as logs, board.claims(lease=3.0, prefetch=1).subscribe(log):
        await turns()
        engine.cancelled = Relay("nobody is told")
        await other.cancel("0")
        assert not log.notifications[0].lost
        await asyncio.sleep(1.01)
        assert log.notifications[0].lost
        assert ["0", "1"] == ids(log.notifications)
    entry = {"board": "b", "task": "0", "token": log.notifications[0].token, "log_level": "warning"}
    assert [entry | {"event": "claim_lost"}] == logs


async def test_dropped_claims_are_given_back_with_a_warning() -> None:
    """Their tasks are ready again after one lease, so a filter causes no busy loop."""
    board, engine = await filled(4)
    log = Probe()

    def is_even(item: Claim[Any]) -> bool:
        return bool(item.task.payload % 2 == 0)

    even = rx.filter(is_even)
    with capture_logs() as logs, board.claims(lease=10.0).pipe(even).subscribe(log):
        await asyncio.sleep(5)
        assert (2, 0, 2, 0, 0) == await marks(board)
        warning = {
            "event": "claims_dropped",
            "board": "b",
            "count": 2,
            "rule": "a claim must be settled or released",
            "log_level": "warning",
        }
        (entry,) = named(logs, "claims_dropped")
        assert entry["first"] in {"1", "3"}
        assert warning | {"first": entry["first"]} == entry
        await asyncio.sleep(5.05)
        assert ["0", "2"] == ids(log.notifications)
        assert 2 == len(named(logs, "claims_dropped"))
        assert [None, None] == [(await _state(board, n)).worker for n in "13"]
        assert [(0, 0)] * 2 == [((s := await _state(board, n)).attempts, s.crashes) for n in "13"]
        await asyncio.sleep(95)
    # There is one warning per lease.
    assert 10 <= len(named(logs, "claims_dropped")) <= 12
    assert len(engine.sizes("settle")) <= 12


async def _state(board: Board, task_id: str) -> Any:
    state = await board.get(task_id)
    assert state is not None
    return state


# ---------------------------------------------------------------- disposal


async def test_disposal_gives_back_what_was_not_handed_on() -> None:
    """The room for which a claim was made may be gone when its tasks arrive."""
    board, engine = await filled(9)
    engine.after["claim"] = 1.0
    probe = Probe(room=5).watch(board.claims())
    await asyncio.sleep(0.5)
    probe._room = 2  # the claim under way is for five
    await asyncio.sleep(1)
    assert ["0", "1"] == ids(probe.notifications)
    assert (0, 4, 5, 0, 0) == await marks(board)
    probe.dispose()
    await turns()
    assert (0, 7, 2, 0, 0) == await marks(board)
    assert [str(n) for n in range(2, 9)] == ids(await board.claim(9))


async def test_disposal_during_a_claim_gives_back_what_it_brings() -> None:
    """The call cannot be recalled, so its tasks are given back when they arrive."""
    board, engine = await filled(3)
    engine.after["claim"] = 1.0
    log = Probe()
    subscription = board.claims().subscribe(log)
    await asyncio.sleep(0.5)
    assert (0, 0, 3, 0, 0) == await marks(board)
    subscription.dispose()
    await asyncio.sleep(1)
    assert (0, 3, 0, 0, 0) == await marks(board)
    assert [] == log.notifications


async def test_disposal_as_a_claim_ends_gives_back_what_it_brings() -> None:
    """The tasks go back in whichever turn of the loop the disposal comes."""
    for turn in range(8):
        board, _ = await filled(3)
        log = Probe()
        subscription = board.claims().subscribe(log)
        await turns(turn)
        subscription.dispose()
        await turns(9)
        assert (0, 3 - len(log.notifications), len(log.notifications), 0, 0) == await marks(board)
        await board.settle([item.done() for item in log.notifications])


async def test_disposal_from_within() -> None:
    """The first claim of a batch is taken, and the others go back."""
    board, _ = await filled(5)
    got = await to_list(board.claims().pipe(rx.take(1)))
    await turns()
    assert ["0"] == ids(got)
    assert (0, 4, 1, 0, 0) == await marks(board)


async def test_settling_from_within() -> None:
    """Settling a claim during its emission makes room for the next one."""
    board, _ = await filled(20)

    def reopen(item: Any) -> None:
        board._intakes.post([item.done()])
        probe.open(1)

    probe = Probe(room=1, on_item=reopen).watch(board.claims(prefetch=2))
    await asyncio.sleep(1)
    probe.dispose()
    assert [str(n) for n in range(20)] == ids(probe.notifications)
    assert (0, 0, 0, 20, 0) == await marks(board)


async def test_a_subscriber_that_raises_ends_its_stream() -> None:
    """The loop reports the error; claims that were not emitted go back."""
    board, _ = await filled(5)
    told: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: told.append(context.get("exception")))
    error = ValueError("x")
    kept: list[Any] = []

    def on_next(item: Claim[Any]) -> None:
        kept.append(item)
        raise error

    board.claims().subscribe(on_next)
    await asyncio.sleep(5)
    assert 1 == len(kept)
    assert [error] == told
    assert (0, 4, 1, 0, 0) == await marks(board)


async def test_one_stream_serves_many_subscriptions() -> None:
    """Each subscription claims for itself."""
    board, _ = await filled(4)
    stream = board.claims(prefetch=2)
    logs = [Probe(), Probe()]
    subscriptions = [stream.subscribe(log) for log in logs]
    await turns()
    assert [["0", "1"], ["2", "3"]] == [ids(log.notifications) for log in logs]
    for subscription in subscriptions:
        subscription.dispose()
    await board.settle([item.release() for log in logs for item in log.notifications])
    assert ["0", "1"] == ids(await to_list(stream.pipe(rx.take(2))))
    await turns()


async def test_the_owner_of_the_board_can_stop_it() -> None:
    """The stream completes, and the drain waits for claims that were emitted."""
    board, _ = await filled(3)
    log = Probe()
    board.claims(prefetch=2).subscribe(log)
    await turns()
    drained = asyncio.create_task(board._intakes.drain(100.0, asyncio.Event()))
    await asyncio.sleep(5)
    assert "|" == log.notifications[-1]
    assert not drained.done()
    await board.settle([item.done() for item in log.notifications[:-1]])
    await drained
    assert 5.0 == asyncio.get_running_loop().time()
    assert (0, 1, 0, 2, 0) == await marks(board)


async def test_a_drain_ends_what_does_not_end() -> None:
    """After the grace, even claims that are still held are given back."""
    board, _ = await filled(2)
    log = Probe()
    board.claims().subscribe(log)
    await turns()
    with capture_logs() as logs:
        await board._intakes.drain(10.0, asyncio.Event())
    assert ["grace_ended"] == [entry["event"] for entry in logs]
    assert 12.0 == asyncio.get_running_loop().time()
    assert (0, 2, 0, 0, 0) == await marks(board)


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prefetch": 0}, "prefetch must be an int >= 1, got 0"),
        ({"prefetch": True}, "prefetch must be an int >= 1, got True"),
        ({"prefetch": 1.5}, "prefetch must be an int >= 1, got 1.5"),
        ({"lease": 0}, "lease must be a finite number of seconds > 0, got 0"),
        ({"lease": -1.0}, "lease must be a finite number of seconds > 0, got -1.0"),
        ({"lease": float("nan")}, "lease must be a finite number of seconds > 0, got nan"),
        ({"lease": "30"}, "lease must be a finite number of seconds > 0, got '30'"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    """Bad arguments are refused when the operator is made."""
    board, _ = place()
    with pytest.raises(ConfigError) as caught:
        claim(board, **options)
    assert message == str(caught.value)
