"""``claim_each`` emits only the tasks that this worker has won, of those that pass by."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import reactivex
from reactivex import Observable
from reactivex import operators as rx
from reactivex.subject import Subject
from structlog.testing import capture_logs

from rxdispatch.boards.memory.board import MemoryBoard
from rxdispatch.errors import ConfigError
from rxdispatch.operators.tasks._claim_each import claim_each
from rxdispatch.streams import run
from rxdispatch.task import Task
from rxdispatch.testing import Probe, Supply
from tests.operators.flow.runs import to_list
from tests.operators.tasks.places import Board, Hand, filled, ids, marks, place, tasks, turns


async def test_each_task_has_one_winner() -> None:
    """One worker wins each task, however many workers see it."""
    board, engine = await filled(20)
    boards: list[Board] = [board, MemoryBoard("b", engine=engine), MemoryBoard("b", engine=engine)]
    broadcast: Subject[Any] = Subject()
    logs = [Probe() for _ in boards]
    for n, (one, log) in enumerate(zip(boards, logs, strict=True)):
        broadcast.pipe(claim_each(one, worker=f"w{n}")).subscribe(log)
    for n in range(20):
        engine.before["claim"] = 0.3 if n % 3 else 0.0
        broadcast.on_next(str(n))
        await asyncio.sleep(0.1)
    broadcast.on_completed()
    await asyncio.sleep(1)
    won = [ids(log.notifications) for log in logs]
    assert sorted(str(n) for n in range(20)) == sorted(task_id for some in won for task_id in some)
    assert ["|"] * 3 == [log.notifications[-1] for log in logs]
    for n, log in enumerate(logs):
        assert {f"w{n}"} >= {item.worker for item in log.notifications[:-1]}


async def test_tasks_and_ids_both_name_a_task() -> None:
    """Ids that the board does not know, or that others hold, are skipped."""
    board, _ = await filled(4)
    held = await board.claim(1, ids=["3"])
    stream: Observable[Any] = reactivex.of(Task(0, id="2"), "nothing", "0", "3", "2")
    assert ["2", "0"] == ids(await to_list(stream.pipe(claim_each(board))))
    assert [True] == await board.settle([held[0].done()])


async def test_what_comes_in_one_turn_is_claimed_together() -> None:
    """Ids that come during a claim call are claimed together too."""
    board, engine = await filled(9)
    engine.after["claim"] = 1.0
    hand, log = Hand(), Probe()
    hand.stream().pipe(claim_each(board)).subscribe(log)
    hand.push("0", "1", "2")
    await asyncio.sleep(0.5)
    hand.push("3", "4")
    await asyncio.sleep(0.1)
    hand.push("5")
    await asyncio.sleep(9)
    assert [(0.0, 3), (1.0, 3)] == [(c.at, c.size) for c in engine.named("claim")]
    assert [1.0] * 3 + [2.0] * 3 == [when for when, _ in log.timeline]
    hand.complete()
    assert "|" == log.notifications[-1]


async def test_completion_waits_until_all_is_decided() -> None:
    """The completion comes after claims that still wait for room."""
    board, engine = await filled(3)
    engine.after["claim"] = 1.0
    hand, probe = Hand(), Probe(room=1)
    probe.watch(hand.stream().pipe(claim_each(board)))
    hand.push("0", "1", "2")
    hand.complete()
    await asyncio.sleep(9)
    assert ["0"] == ids(probe.notifications)
    probe.open(2)
    assert ["0", "1", "2"] == ids(probe.notifications)
    assert "|" == probe.notifications[-1]


async def test_an_empty_source_completes_at_once() -> None:
    """The board is not called."""
    board, engine = place()
    log = Probe()
    reactivex.empty().pipe(claim_each(board)).subscribe(log)
    assert (["|"], []) == (log.notifications, engine.calls)


async def test_an_error_of_the_source_passes_at_once() -> None:
    """The tasks of a running claim call go back."""
    board, engine = await filled(2)
    engine.after["claim"] = 1.0
    error = OSError("x")
    hand, log = Hand(), Probe()
    hand.stream().pipe(claim_each(board)).subscribe(log)
    hand.push("0", "1")
    await asyncio.sleep(0.5)
    hand.fail(error)
    assert [(0.5, error)] == log.timeline
    await asyncio.sleep(1)
    assert (0, 2, 0, 0, 0) == await marks(board)


async def test_a_server_that_is_away_is_waited_for() -> None:
    """The same ids are claimed again."""
    board, engine = await filled(2)
    engine.away("claim", 3)
    with capture_logs() as logs:
        got = await to_list(reactivex.of("0", "1").pipe(claim_each(board)))
    assert ["0", "1"] == ids(got)
    events = [("claims_waiting", "b"), ("claims_going_on", "b")]
    assert events == [(entry["event"], entry["board"]) for entry in logs]
    assert [2] * 4 == engine.sizes("claim")


async def test_another_error_of_the_board_ends_the_stream() -> None:
    """The stream ends at once, and the source is disposed."""
    board, engine = await filled(2)
    error = RuntimeError("x")
    engine.faults["claim"].append(error)
    hand, log = Hand(), Probe()
    hand.stream().pipe(claim_each(board)).subscribe(log)
    hand.push("0")
    await turns()
    assert [error] == log.notifications
    assert 1 == hand.disposed
    assert hand.gate.closed


@pytest.mark.parametrize("item", [5, None, b"0"])
async def test_what_is_no_task_and_no_id_is_an_error(item: Any) -> None:
    """The stream ends with the error, once."""
    board, _ = await filled(1)
    hand, log = Hand(), Probe()
    hand.stream().pipe(claim_each(board)).subscribe(log)
    hand.push("0", item, item)
    await turns()
    (error,) = log.notifications
    assert isinstance(error, ConfigError)
    assert f"claim_each must be given Tasks or ids, got {item!r}" == str(error)
    assert (0, 1, 0, 0, 0) == await marks(board)


async def test_disposal_gives_back_what_was_not_emitted() -> None:
    """Claims that wait for room go back, and so do those that are on their way."""
    board, engine = await filled(6)
    engine.after["claim"] = 1.0
    hand, probe = Hand(), Probe(room=1)
    probe.watch(hand.stream().pipe(claim_each(board)))
    hand.push("0", "1", "2")
    await asyncio.sleep(1.5)
    hand.push("3", "4")
    await asyncio.sleep(0.1)
    assert (0, 1, 5, 0, 0) == await marks(board)
    probe.dispose()
    await asyncio.sleep(2)
    assert ["0"] == ids(probe.notifications)
    assert (0, 5, 1, 0, 0) == await marks(board)


async def test_disposal_from_within() -> None:
    """The first claim of a batch is taken, and the others go back."""
    board, _ = await filled(5)
    last = await run(reactivex.of("3", "1", "2").pipe(claim_each(board), rx.take(1)))
    await turns()
    assert last is not None
    assert "3" == last.task.id
    assert (0, 4, 1, 0, 0) == await marks(board)


async def test_claims_are_renewed_until_they_are_settled() -> None:
    """Renewals come at a third of the lease."""
    board, engine = await filled(1)
    log = Probe()
    reactivex.of("0").pipe(claim_each(board, lease=3.0)).subscribe(log)
    await asyncio.sleep(100.5)
    assert 100 == len(engine.named("renew"))
    await board.settle([log.notifications[0].done()])
    await asyncio.sleep(100)
    assert 100 == len(engine.named("renew"))


async def test_one_instance_serves_many_subscriptions() -> None:
    """Each subscription claims what passes by it."""
    board, _ = await filled(4)
    operator = claim_each(board)
    got = await asyncio.gather(
        *(to_list(reactivex.of(*some).pipe(operator)) for some in (("0", "1"), ("1", "2")))
    )
    assert [["0", "1"], ["2"]] == [ids(items) for items in got]


async def test_the_valve_holds_a_thousand() -> None:
    """Together, undecided ids and claims that wait for room are at most a thousand."""
    board, _ = place()
    await board.submit(tasks(3000))
    supply, probe = Supply([str(n) for n in range(3000)]), Probe(room=1)
    probe.watch(supply.pipe(claim_each(board)))
    assert 1000 == supply.sent
    await asyncio.sleep(1)
    assert 1 == len(probe.notifications)
    assert 1000 >= (await board.counts()).claimed
    probe.open(5000)
    await asyncio.sleep(1)
    assert [str(n) for n in range(3000)] == ids(probe.notifications)
    assert "|" == probe.notifications[-1]
    probe.dispose()


async def test_ids_of_a_claim_under_way_count() -> None:
    """While a thousand ids are being claimed, no more may come."""
    board, engine = place()
    await board.submit(tasks(1000))
    engine.after["claim"] = 1.0
    hand, log = Hand(), Probe()
    subscription = hand.stream().pipe(claim_each(board)).subscribe(log)
    hand.push(*(str(n) for n in range(1000)))
    rooms = [hand.gate.room()]
    await asyncio.sleep(0.5)
    rooms.append(hand.gate.room())
    await asyncio.sleep(1)
    assert [0, 0, 1000] == [*rooms, hand.gate.room()]
    assert 1000 == len(log.items)
    subscription.dispose()


async def test_the_owner_of_the_board_can_stop_it() -> None:
    """The stream completes, and the drain waits for claims that were emitted."""
    board, _ = await filled(2)
    hand, log = Hand(), Probe()
    hand.stream().pipe(claim_each(board)).subscribe(log)
    hand.push("0")
    await turns()
    drained = asyncio.create_task(board._intakes.drain(9.0, asyncio.Event()))
    await asyncio.sleep(1)
    assert "|" == log.notifications[-1]
    assert 1 == hand.disposed
    await board.settle([log.notifications[0].done()])
    await drained
    assert 1.0 == asyncio.get_running_loop().time()


@pytest.mark.parametrize("lease", [0, -1.0, float("inf"), "3", None])
def test_bad_arguments(lease: Any) -> None:
    """Bad arguments are refused when the operator is made."""
    board, _ = place()
    with pytest.raises(ConfigError) as caught:
        claim_each(board, lease=lease)
    rule = "lease must be a finite number of seconds > 0, got "
    assert f"{rule}{lease!r}" == str(caught.value)
