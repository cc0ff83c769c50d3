"""``settle``: when it writes, and that it passes on outcomes as they were written."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
import reactivex
from reactivex import operators as rx
from structlog.testing import capture_logs

from rxdispatch.claim import Claim, Outcome
from rxdispatch.errors import ConfigError
from rxdispatch.operators.tasks._execute import execute
from rxdispatch.operators.tasks._settle import settle
from rxdispatch.streams import run
from rxdispatch.task import Task
from rxdispatch.testing import Probe, Supply
from tests.operators.flow.runs import to_list
from tests.operators.tasks.places import (
    Board,
    Engine,
    Hand,
    Result,
    filled,
    ids,
    marks,
    place,
    turns,
)


async def done(count: int) -> tuple[Board, Engine, list[Result]]:
    """Return a board, its engine, and *count* outcomes that are not renewed."""
    board, engine = await filled(count)
    found: list[Result] = [Outcome(claim, "done") for claim in await board.claim(count)]
    engine.calls.clear()
    return board, engine, found


# ---------------------------------------------------------------- when it writes


async def test_a_full_batch_is_written_at_once() -> None:
    """A full batch is written even beside another write."""
    board, engine, found = await done(5)
    engine.after["settle"] = 1.0
    hand, log = Hand(), Probe()
    hand.stream().pipe(settle(board, count=2, timespan=9.0)).subscribe(log)
    hand.push(*found)
    await turns()
    assert [2, 2] == engine.sizes("settle")
    await asyncio.sleep(20)
    assert [(0.0, 2), (0.0, 2), (9.0, 1)] == [(c.at, c.size) for c in engine.named("settle")]
    assert [1.0] * 4 + [10.0] == [when for when, _ in log.timeline]
    assert found == log.notifications
    assert (0, 0, 0, 5, 0) == await marks(board)


async def test_an_outcome_waits_for_others_for_a_while() -> None:
    """The time runs from the first outcome."""
    board, engine, found = await done(3)
    hand, log = Hand(), Probe()
    hand.stream().pipe(settle(board, timespan=timedelta(seconds=2))).subscribe(log)
    for outcome in found:
        hand.push(outcome)
        await asyncio.sleep(1.5)
    await asyncio.sleep(9)
    assert [(2.0, 2), (5.0, 1)] == [(c.at, c.size) for c in engine.named("settle")]
    assert found == log.notifications


async def test_the_timer_does_not_write_beside_another_write() -> None:
    """A batch that is due is written after the write, with all outcomes that came meanwhile."""
    board, engine, found = await done(6)
    engine.after["settle"] = 5.0
    hand, log = Hand(), Probe()
    hand.stream().pipe(settle(board, timespan=1.0)).subscribe(log)
    for outcome in found:
        hand.push(outcome)
        await asyncio.sleep(1.1)
    await asyncio.sleep(30)
    assert [(1.0, 1), (6.0, 5)] == [(c.at, c.size) for c in engine.named("settle")]
    assert found == log.notifications


async def test_the_last_of_a_stream_is_written_at_once() -> None:
    """When all claims of the stream have an outcome, there is nothing to wait for."""
    board, engine = await filled(3)

    async def handler(task: Task[Any]) -> None:
        await asyncio.sleep(task.payload)

    log = Probe()
    stream = board.claims().pipe(execute(handler), settle(board, timespan=100.0))
    with stream.subscribe(log):
        await asyncio.sleep(9)
        # 0 and 1 wait, as 2 is still running.
        assert [(2.0, 3)] == [(c.at, c.size) for c in engine.named("settle")]
        assert [2.0] * 3 == [when for when, _ in log.timeline]
        await board.submit(Task(0, id="x"))
        await turns(9)
        assert [9.0] == engine.times("settle")[1:]


async def test_the_last_of_a_stream_is_written_beside_another_write() -> None:
    """Outcomes that are being written count as arrived."""
    board, engine = await filled(3)
    engine.after["settle"] = 5.0

    async def handler(task: Task[Any]) -> None:
        await asyncio.sleep(task.payload)

    stream = board.claims().pipe(execute(handler), settle(board, count=2, timespan=100.0))
    with stream.subscribe(Probe()):
        await asyncio.sleep(20)
    assert [(1.0, 2), (2.0, 1)] == [(c.at, c.size) for c in engine.named("settle")]


# ---------------------------------------------------------------- outcomes


async def test_each_kind_of_outcome_is_written() -> None:
    """The kinds are done, retry, dead and release."""
    board, _, found = await done(4)
    finished, again, dead, released = found
    again.status, again.delay, again.error = "retry", 5.0, OSError("x")
    dead.status, dead.reason = "dead", "mine"
    released.status = "released"
    got = await to_list(reactivex.from_iterable(found).pipe(settle(board)))
    assert found == got
    assert ["done", "retry", "dead", "released"] == [o.status for o in got]
    assert (1, 1, 0, 1, 1) == await marks(board)
    letters = [letter async for letter in board.dead_letters()]
    assert [("2", "mine")] == [(d.task.id, d.reason) for d in letters]
    state = await board.get("1")
    assert state is not None
    assert "OSError: x" == state.error
    assert [True] == Claim._answers([finished.claim.done()])


async def test_what_is_refused_is_lost() -> None:
    """An outcome that was lost before is not even sent."""
    board, engine, found = await done(3)
    await board.cancel("0")
    found[1].status = "lost"
    got = await to_list(reactivex.from_iterable(found).pipe(settle(board)))
    assert ["lost", "lost", "done"] == [o.status for o in got]
    assert [2] == engine.sizes("settle")


async def test_only_lost_outcomes_need_no_write() -> None:
    """Lost outcomes are passed on without a write."""
    board, engine, found = await done(2)
    for outcome in found:
        outcome.status = "lost"
    got = await to_list(reactivex.from_iterable(found).pipe(settle(board)))
    assert found == got
    assert [] == engine.calls


async def test_a_lease_that_passed_is_refused() -> None:
    """The settlement is refused if another worker has taken the task over."""
    board, _, found = await done(1)
    await asyncio.sleep(31)
    assert ["0"] == ids(await board.claim(1))
    got = await to_list(reactivex.from_iterable(found).pipe(settle(board)))
    assert ["lost"] == [o.status for o in got]


# ---------------------------------------------------------------- errors


async def test_a_server_that_is_away_is_waited_for() -> None:
    """The same settlements are sent again until they are written, with an entry at either end."""
    board, engine, found = await done(3)
    engine.away("settle", 5)
    hand, log = Hand(), Probe()
    hand.stream().pipe(settle(board, count=3)).subscribe(log)
    with capture_logs() as logs:
        hand.push(*found)
        await asyncio.sleep(9)
    assert [3] * 6 == engine.sizes("settle")
    assert 0.25 <= log.timeline[0][0] <= 1.5
    assert ["done"] * 3 == [o.status for o in log.notifications]
    events = [("settle_waits", "b"), ("settle_goes_on", "b")]
    assert events == [(entry["event"], entry["board"]) for entry in logs]


async def test_the_valve_closes_while_the_server_is_away() -> None:
    """The valve closes at four times the count, and opens when the server is back."""
    board, engine, found = await done(50)
    engine.away("settle", 40)
    supply, probe = Supply(found), Probe(room=99)
    with capture_logs():
        probe.watch(supply.pipe(settle(board, count=3)))
        await asyncio.sleep(0.5)
        assert 12 == supply.sent
        await asyncio.sleep(60)
    assert 50 == supply.sent
    assert "|" == probe.notifications[-1]
    assert (0, 0, 0, 50, 0) == await marks(board)


async def test_another_error_of_the_board_ends_the_stream() -> None:
    """The stream ends at once, and the source is disposed."""
    board, engine, found = await done(4)
    error = RuntimeError("x")
    engine.faults["settle"].append(error)
    hand, log = Hand(), Probe()
    hand.stream().pipe(settle(board, count=3)).subscribe(log)
    gate = hand.gate
    hand.push(*found)
    await asyncio.sleep(1)
    assert [error] == log.notifications
    assert 1 == hand.disposed
    assert gate.closed
    # The other outcomes are written in the background.
    assert (0, 0, 3, 1, 0) == await marks(board)


async def test_an_error_of_the_source_comes_after_the_last_write() -> None:
    """An error waits for the last write, as a completion does."""
    error = OSError("x")
    for end in (None, error):
        board, engine, found = await done(3)
        engine.after["settle"] = 2.0
        start = asyncio.get_running_loop().time()
        hand, log = Hand(), Probe()
        hand.stream().pipe(settle(board, count=2, timespan=60.0)).subscribe(log)
        hand.push(*found)
        if end is None:
            hand.complete()
        else:
            hand.fail(end)
        await asyncio.sleep(9)
        assert [*found, end or "|"] == log.notifications
        assert {start + 2.0} == {when for when, _ in log.timeline}


async def test_an_empty_source_completes_at_once() -> None:
    """Nothing is written for such a source."""
    board, engine = place()
    log = Probe()
    reactivex.empty().pipe(settle(board)).subscribe(log)
    assert (["|"], []) == (log.notifications, engine.calls)


async def test_the_valve_can_end_the_stream() -> None:
    """A drain that ran out of time does so; held outcomes are written."""
    board, _, found = await done(2)
    error = TimeoutError("x")
    hand, log = Hand(), Probe()
    hand.stream().pipe(settle(board, timespan=60.0)).subscribe(log)
    hand.push(*found)
    assert hand.gate.fail(error)
    await asyncio.sleep(1)
    assert [error] == log.notifications
    assert (0, 0, 0, 2, 0) == await marks(board)


# ---------------------------------------------------------------- disposal


async def test_disposal_writes_what_is_held() -> None:
    """The write happens in the background, and the subscriber is not called."""
    board, engine, found = await done(3)
    hand, log = Hand(), Probe()
    subscription = hand.stream().pipe(settle(board, timespan=60.0)).subscribe(log)
    hand.push(*found)
    subscription.dispose()
    subscription.dispose()
    assert 1 == hand.disposed
    await turns()
    assert [(0.0, 3)] == [(c.at, c.size) for c in engine.named("settle")]
    assert [] == log.notifications
    assert (0, 0, 0, 3, 0) == await marks(board)


@pytest.mark.parametrize("fault", [None, RuntimeError("x")])
async def test_disposal_lets_a_write_end(fault: Exception | None) -> None:
    """A running write ends; outcomes that come meanwhile are written too."""
    board, engine, found = await done(3)
    engine.before["settle"] = 5.0
    if fault is not None:
        engine.faults["settle"].append(fault)
    hand, log = Hand(), Probe()
    subscription = hand.stream().pipe(settle(board, count=2, timespan=1.0)).subscribe(log)
    with capture_logs() as logs:
        hand.push(*found)
        await asyncio.sleep(2)
        subscription.dispose()
        await asyncio.sleep(9)
    assert [] == log.notifications
    expected = (0, 0, 0, 3, 0) if fault is None else (0, 0, 2, 1, 0)
    assert expected == await marks(board)
    assert ([] if fault is None else ["settle_failed"]) == [entry["event"] for entry in logs]


async def test_disposal_from_within() -> None:
    """Only the first of a batch is passed on, but all of it is written."""
    board, _, found = await done(6)
    stream = reactivex.from_iterable(found).pipe(settle(board, count=3), rx.take(1))
    assert found[0] is await run(stream)
    await turns()
    assert (0, 0, 0, 6, 0) == await marks(board)


async def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription has its own batch."""
    board, engine, found = await done(6)
    operator = settle(board, timespan=1.0)
    hands, logs = [Hand(), Hand()], [Probe(), Probe()]
    for hand, log in zip(hands, logs, strict=True):
        hand.stream().pipe(operator).subscribe(log)
    for n, outcome in enumerate(found):
        hands[n % 2].push(outcome)
    await asyncio.sleep(2)
    assert [found[::2], found[1::2]] == [log.notifications for log in logs]
    assert [3, 3] == engine.sizes("settle")


async def test_no_room_below_closes_the_valve() -> None:
    """A subscriber that takes nothing stops the source."""
    board, _, found = await done(3)
    supply, probe = Supply(found), Probe(room=0)
    probe.watch(supply.pipe(settle(board)))
    await asyncio.sleep(1)
    assert 0 == supply.sent
    probe.open(3)
    await asyncio.sleep(1)
    assert [*found, "|"] == probe.notifications


# ---------------------------------------------------------------- arguments


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"count": 0}, "count must be an int >= 1, got 0"),
        ({"count": True}, "count must be an int >= 1, got True"),
        ({"timespan": 0.0}, "timespan must be a finite number of seconds > 0, got 0.0"),
        ({"timespan": None}, "timespan must be a finite number of seconds > 0, got None"),
    ],
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    """Bad arguments are refused when the operator is made."""
    board, _ = place()
    with pytest.raises(ConfigError) as caught:
        settle(board, **options)
    assert message == str(caught.value)
