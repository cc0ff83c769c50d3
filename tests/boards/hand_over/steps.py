"""Everything that can happen next."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tests.boards.hand_over.reading import read_message, read_reply
from tests.boards.hand_over.rules import Rule, Scenario
from tests.boards.hand_over.scripts import claim, hand_over, lapse, put_back
from tests.boards.hand_over.world import Claim, Hold, Message, Worker, World

__all__ = ["Step", "steps"]


class Step(NamedTuple):
    """One step. Its kind is "", "settle" for the end of a handler, "poll" or "fault"."""

    name: str
    kind: str
    world: World


def steps(scenario: Scenario, world: World) -> Iterator[Step]:
    """Yield the steps from a state.

    A poll is no fault where nothing else can happen.
    """
    quiet = True
    for step in (*_submit(scenario, world), *_by_workers(scenario, world)):
        quiet = False
        yield step
    for step in _lapses(scenario, world):
        quiet = False
        yield step
    for at, worker in enumerate(world.workers):
        if quiet and worker.life == "live" and worker.claim is None and _room(scenario, worker):
            yield Step(f"{at} polls", "poll", world.with_worker(at, _asking(scenario, worker)))
        if world.faults < scenario.faults:
            hurt = world._replace(faults=world.faults + 1)
            for name, after in _faults(scenario, hurt, at):
                if name in scenario.kinds:
                    yield Step(f"{at}: {name}", "fault", after)


def _submit(scenario: Scenario, world: World) -> Iterator[Step]:
    # The others that are not submitted yet are like the first.
    new = [i for i, task in enumerate(world.tasks) if task.state == "new"]
    for i in new if scenario.killer else new[:1]:
        for after in hand_over(scenario, world.with_tasks([i], state="ready")):
            yield Step(f"submit {i}", "", after)


def _by_workers(scenario: Scenario, world: World) -> Iterator[Step]:
    for at, worker in enumerate(world.workers):
        if worker.claim is not None and not worker.claim.done:
            for after in claim(scenario, world, at):
                yield Step(f"{at}: the claim is executed", "", after)
        if worker.life == "frozen":
            yield Step(f"{at} thaws", "", world.with_worker(at, _thawed(scenario, worker)))
        elif worker.life == "dead":
            if worker.claim is not None:
                after = world.with_worker(at, worker._replace(claim=None))
                yield Step(f"{at}: the claim vanishes", "", after)
        else:
            yield from _by_worker(scenario, world, at)


def _by_worker(scenario: Scenario, world: World, at: int) -> Iterator[Step]:
    worker = world.workers[at]
    if worker.claim is not None and worker.claim.done:
        after = world.with_worker(at, read_reply(scenario, worker))
        yield Step(f"{at} reads {worker.claim}", "", after)
    if worker.life == "live":
        if not worker.listens:
            must = worker.must_claim or scenario.keeps(Rule.CLAIM_ON_RECONNECT)
            again = worker._replace(listens=True, must_claim=must)
            yield Step(f"{at} connects again", "", world.with_worker(at, again))
        if worker.claim is None and _wants_to_claim(scenario, worker):
            asking = _asking(scenario, worker)._replace(must_claim=False)
            yield Step(f"{at} sends {asking.claim}", "", world.with_worker(at, asking))
        if worker.queue and worker.listens:
            after = world.with_worker(at, read_message(scenario, worker))
            yield Step(f"{at} reads {worker.queue[0]}", "", after)
    elif worker.life == "leaving":
        named = worker.seen if scenario.keeps(Rule.LEAVE_NAMES_SEEN) else ()
        unread = [n for n in worker.listed if n > worker.read and n not in named]
        which = [i for i in world.held_by(at) if world.tasks[i].number in unread]
        left = Worker("left", holds=worker.holds, claim=worker.claim, must_claim=False)
        for after in put_back(scenario, world.with_worker(at, left), which):
            yield Step(f"{at} leaves", "", after)
    for hold in worker.holds:
        yield from _with_hold(scenario, world, at, hold)


def _with_hold(scenario: Scenario, world: World, at: int, hold: Hold) -> Iterator[Step]:
    worker, task = world.workers[at], world.tasks[hold.task]
    others = tuple(other for other in worker.holds if other != hold)
    without = world.with_worker(at, worker._replace(holds=others))
    valid = task.token == hold.number
    if hold.stage != "read":
        if valid:
            without = without.with_tasks([hold.task], state="ended", number=0, holder=-1, lease="")
        yield Step(f"{at} settles {hold.task}", "settle", without)
    elif worker.life == "left":
        for after in put_back(scenario, without, [hold.task]) if valid else [without]:
            yield Step(f"{at} releases {hold.task}", "", after)
    elif hold.old and not valid:
        yield Step(f"{at} drops {hold.task}", "", without)
    else:
        running = hold._replace(stage="running", old=False)
        after = world.with_worker(at, worker._replace(holds=tuple(sorted((*others, running)))))
        if valid and task.killer:
            # Another worker takes its place.
            dead = Worker("dead", listens=False, must_claim=False)
            after = world.with_worker(at, dead)._replace(kills=world.kills + 1)
            after = after._replace(workers=(*after.workers, Worker()))
        yield from _starts(scenario, after, at, hold)


def _starts(scenario: Scenario, world: World, at: int, hold: Hold) -> Iterator[Step]:
    task = world.tasks[hold.task]
    if task.token != hold.number:
        yield Step(f"{at} starts {hold.task} without a token", "", world)
        return
    begun = world.with_tasks([hold.task], begun=True)
    if task.lease == "handed":
        # A confirmation that is written arrives before the lease lapses, so it may as well be
        # executed now. Where it is lost with its worker, it might not have been sent.
        confirmed = begun.with_tasks([hold.task], lease="confirmed")
        yield Step(f"{at} starts {hold.task}", "", confirmed)
    if task.lease != "handed" or (scenario.quick and not hold.old):
        yield Step(f"{at} starts {hold.task}, no confirmation", "", begun)


def _room(scenario: Scenario, worker: Worker) -> int:
    return max(0, scenario.places - len(worker.holds))


def _wants_to_claim(scenario: Scenario, worker: Worker) -> bool:
    return worker.must_claim or (worker.parked <= 0 and _room(scenario, worker) > 0)


def _asking(scenario: Scenario, worker: Worker) -> Worker:
    return worker._replace(claim=Claim(_room(scenario, worker), worker.read))


def _thawed(scenario: Scenario, worker: Worker) -> Worker:
    old = scenario.keeps(Rule.CHECK_AGE)
    request = worker.claim
    return worker._replace(
        life="live",
        queue=_aged(worker.queue),
        holds=tuple(
            hold._replace(old=old) if hold.stage == "read" else hold._replace(stage="doubtful")
            for hold in worker.holds
        ),
        claim=None if request is None else request._replace(old=request.done),
    )


def _aged(queue: tuple[Message, ...]) -> tuple[Message, ...]:
    return tuple(message._replace(old=message.number > 0) for message in queue)


def _faults(scenario: Scenario, world: World, at: int) -> Iterator[tuple[str, World]]:
    worker = world.workers[at]
    if worker.life == "dead":
        return
    sent = worker.claim if worker.claim is not None and not worker.claim.done else None
    dead = Worker("dead", room=worker.room, last=worker.last, must_claim=False, claim=sent)
    yield "killed", world.with_worker(at, dead._replace(listens=False))
    yield "cut off", world.with_worker(at, dead)
    if worker.life == "live":
        for name, after in _to_live_worker(scenario, worker):
            yield name, world.with_worker(at, after)


def _to_live_worker(scenario: Scenario, worker: Worker) -> Iterator[tuple[str, Worker]]:
    request, queue = worker.claim, worker.queue
    yield "frozen", worker._replace(life="frozen")
    if request is not None and request.done:
        yield "reply lost", worker._replace(claim=None, unread=request.got, must_claim=True)
    if request is None and _room(scenario, worker) and not _wants_to_claim(scenario, worker):
        yield "polls", _asking(scenario, worker)
    if worker.listens:
        yield "disconnected", worker._replace(listens=False, queue=())
    if queue:
        yield "message lost", worker._replace(queue=queue[1:])
        if queue[0].number:
            yield "doubled", worker._replace(queue=(*queue, queue[0]))
            yield "delayed", worker._replace(queue=_aged(queue))
    if (request is None and not worker.unread) or not scenario.keeps(Rule.LEAVE_WAITS):
        yield "leaves", worker._replace(life="leaving", queue=(), must_claim=False)


def _lapses(scenario: Scenario, world: World) -> Iterator[Step]:
    ranges: dict[tuple[int, str, int], list[int]] = {}
    for i, task in enumerate(world.tasks):
        if task.state == "claimed" and _may_lapse(world, i):
            # What was asked for lapses one by one, in any order.
            part = -1 if task.lease == "handed" else i
            ranges.setdefault((task.number, task.lease, part), []).append(i)
    for which in ranges.values():
        for after in lapse(scenario, world, which):
            yield Step(f"the lease of {which} lapses", "", after)


def _may_lapse(world: World, i: int) -> bool:
    """Say whether nobody is going to renew a claim in time."""
    task = world.tasks[i]
    worker, token = world.workers[task.holder], (i, task.number)
    if worker.life in ("dead", "frozen"):
        return True
    reply = worker.claim
    return not (
        token in worker.unread
        or any((hold.task, hold.number) == token for hold in worker.holds)
        or any(m.number == task.number and i in m.tasks and not m.old for m in worker.queue)
        or (reply is not None and token in (*reply.later, *reply.got))
    )
